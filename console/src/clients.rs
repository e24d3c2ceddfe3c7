//! Calls to the gateway and the services.

pub mod admin; // the services' calls for admins, with the admin's own token
pub mod gateway; // the gateway's admin port
pub mod inspection; // the invariants of the whole stack
pub mod lab; // faults of every replica, with `LAB=on`
pub mod overview; // everything that the map shows
pub mod replicas; // one replica, asked directly
pub mod sessions; // log-in of admins
