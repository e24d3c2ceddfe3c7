#![doc = include_str!("../README.md")]

pub mod config; // environment variables
pub mod app; // wires everything together
pub mod routing; // gateway.toml: routes and policies
pub mod tls; // certificates, and the redirect from HTTP to HTTPS
pub mod watch; // notices a changed gateway.toml
pub mod policies; // what a route asks for beyond the proxy
pub mod cache; // answers that may be given to everybody for a while
pub mod edge; // the access log and the policies around the proxy
pub mod proxy; // the life of a request
pub mod oidc; // tokens of an external issuer
pub mod identity; // verifies user tokens
pub mod address; // addresses of clients
pub mod rate; // rate limits
pub mod concurrency; // limits of streams and waiting requests
pub mod engine; // sends one request to one replica, streaming both ways
pub mod access_log; // fields and flags of the log line of a request
pub mod registrations; // the in-memory registry, and the pools of all services
pub mod checks; // active health checks
pub mod admin; // the admin port: routes, registry
pub mod pages; // security headers of the gateway's own pages
pub mod docs; // merged OpenAPI document, and Swagger UI
