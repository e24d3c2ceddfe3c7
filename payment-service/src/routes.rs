//! The endpoints.

shared::routes! {
    api: list_payments, show_payment, refund_payment;
    admin: show_ledger;
}
