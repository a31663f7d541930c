//! Drives the face over real sockets and pipes.
