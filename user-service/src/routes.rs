//! The routing table.

mod admin_change;
mod client_address;
mod visible_user;

shared::routes! {
    api: list_users, register_user, show_user, change_user, deactivate_user,
        log_in, refresh_session, log_out, show_keys;
    admin: show_audit;
}
