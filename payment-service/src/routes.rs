//! The routing table: one file and one line for each use case.

shared::routes! {
    api: list_payments, show_payment, refund_payment;
    admin: show_ledger, list_entries, list_differences;
}
