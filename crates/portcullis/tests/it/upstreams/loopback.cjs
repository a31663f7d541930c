// Loaded before a server that would listen on every address of the machine: it listens on loopback instead.
const net = require('node:net');
const listen = net.Server.prototype.listen;
net.Server.prototype.listen = function (...given) {
  if (typeof given[0] === 'number' || typeof given[0] === 'string') {
    const rest = typeof given[1] === 'string' ? given.slice(2) : given.slice(1);
    return listen.call(this, Number(given[0]), '127.0.0.1', ...rest);
  }
  if (given[0] && typeof given[0] === 'object' && 'port' in given[0]) given[0].host = '127.0.0.1';
  return listen.apply(this, given);
};
