#![doc = include_str!("../README.md")]

pub mod config; // what can be set from outside
pub mod app; // the only place that wires
pub mod routing; // gateway.toml: which path belongs to which service
pub mod proxy; // the life of a request
pub mod identity; // who asks
pub mod rate; // how often they may
pub mod engine; // one request to one replica, streamed both ways
pub mod registrations; // the registry in memory, and the pools of all services
pub mod checks; // active health checks
pub mod admin; // the admin port: dashboard, routes, registry
pub mod docs; // one OpenAPI document of all services, and Swagger UI
