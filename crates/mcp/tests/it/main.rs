//! Drives the face over real sockets and pipes, with a client that knows nothing but bytes: no code of the server's
//! side is shared with it.

#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]
#![expect(clippy::disallowed_methods, reason = "the client of these tests is a bare socket to a loopback listener")]
#![expect(clippy::needless_pass_by_value, reason = "JSON is built where it is passed")]

mod batches;
mod credentials;
mod door;
mod house;
mod http;
mod modern;
mod robust;
mod rounds;
mod sessions;
mod stdio;
