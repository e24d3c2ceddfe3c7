//! Shipping and delivery, and orders that can no longer be cancelled.

use crate::harness::*;

#[actix_web::test]
async fn a_confirmed_order_is_shipped_and_delivered_in_this_order() {
    let world = world().await;
    let (tea, customer, admin) = (world.product(10).await, world.customer(), world.admin());
    let order = customer.place(&tea, 1).await;
    let (ship, deliver) = (format!("{}/ship", path(&order)), format!("{}/deliver", path(&order)));
    admin.post_empty(&ship).await.expect_problem(409, "invalid_transition");
    world.pay(&order).await;
    admin.post_empty(&deliver).await.expect_problem(409, "invalid_transition");
    let shipped = admin.post_empty(&ship).await;
    assert_eq!(shipped.header("etag"), "\"4\"");
    assert_eq!(shipped.expect(200)["status"], "shipped");
    admin.post_empty(&ship).await.expect_problem(409, "invalid_transition");
    customer.cancel(&order).await.expect_problem(409, "not_cancellable");
    assert_eq!(admin.post_empty(&deliver).await.expect(200)["status"], "delivered");
    customer.cancel(&order).await.expect_problem(409, "not_cancellable");
    assert_eq!(world.stock(&tea).await, [9, 0, 1]);
}

#[actix_web::test]
async fn a_rejected_order_cannot_be_cancelled() {
    let world = world().await;
    let (tea, customer) = (world.product(10).await, world.customer());
    let order = customer.place(&tea, 1).await;
    world.payment(&order, "declined").await;
    customer.cancel(&order).await.expect_problem(409, "not_cancellable");
}

#[actix_web::test]
async fn an_admin_may_cancel_any_order() {
    let world = world().await;
    let (tea, customer) = (world.product(10).await, world.customer());
    let order = customer.place(&tea, 1).await;
    world.admin().cancel(&order).await.expect(202);
    customer.assert_status(&order, "cancelling").await;
}
