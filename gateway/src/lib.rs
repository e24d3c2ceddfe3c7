#![doc = include_str!("../README.md")]

pub mod config; // environment variables
pub mod app; // wires everything together
pub mod routing; // gateway.toml: routes and policies
pub mod proxy; // the life of a request
pub mod identity; // verifies user tokens
pub mod rate; // rate limits
pub mod concurrency; // limits of streams and waiting requests
pub mod engine; // sends one request to one replica, streaming both ways
pub mod registrations; // the in-memory registry, and the pools of all services
pub mod checks; // active health checks
pub mod admin; // the admin port: dashboard, routes, registry
pub mod docs; // merged OpenAPI document, and Swagger UI
