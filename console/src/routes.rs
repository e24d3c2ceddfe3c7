//! The routing table: one file and one line for each use case.

mod answer; // what a service has answered, passed on
mod cookies; // the key of a session
pub mod hosts; // names under which this program may be asked
mod operator; // the admin who sends a request
pub mod otlp; // traces and logs that arrive, on a port of their own
pub mod pages; // the shell of the views

pub use show_order::CardNetwork;

shared::routes! {
    api: show_asset, log_in, show_session, log_out, show_map, stream_map, switch_strategy, change_replica,
        list_orders, show_order, list_order_messages, act_on_order, list_traces, show_trace, list_logs,
        list_messages, replay_message, discard_message, show_numbers, show_lab, start_fault, end_fault,
        list_invariants, show_customers, set_customers;
}
