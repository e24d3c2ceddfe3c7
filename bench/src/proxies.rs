//! The gateway beside other proxies, for `scripts/bench gateway`: one core for the proxy that is measured, the others
//! for the origins and the clients.

pub mod lab; // the folder, the origins and the proxies
pub mod case; // what is asked for
pub mod client; // clients of our own: at a fixed rate, idle, and in a row
pub mod wrk; // as fast as it goes
pub mod memory; // of idle connections, and of large bodies
pub mod instructions; // of one request, counted by valgrind
pub mod results; // the tables
pub mod chart; // the picture of them
