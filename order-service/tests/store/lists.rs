//! Lists: filters, search and pages.

use order_service::checkout::Trigger;
use order_service::domain::Reason;
use order_service::store::Filter;
use shared::db::now;
use shared::request::Paging;
use shared::testing::eventually;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::harness::*;

fn page(limit: usize, cursor: Option<Uuid>) -> Paging {
    Paging { limit, cursor }
}

#[actix_web::test]
async fn orders_are_listed_newest_first_by_customer_and_status() {
    for store in stores().await {
        let tea = product(&store, 100).await;
        let mut orders = Vec::new();
        for _ in 0..5 {
            orders.push(place(&store, &[(&tea, 1)]).await.unwrap());
        }
        apply(&store, &orders[1], Trigger::Declined(Reason::CardDeclined)).await.unwrap();

        let all = store.orders(&page(100, None), Filter::default()).await.unwrap();
        let newest_first: Vec<_> = orders.iter().rev().map(|order| order.id).collect();
        assert_eq!(all.items.iter().map(|order| order.id).collect::<Vec<_>>(), newest_first);

        let mine = Filter { customer_id: Some(orders[2].customer_id), ..Filter::default() };
        assert_eq!(store.orders(&page(100, None), mine).await.unwrap().items[..], orders[2..3]);

        let both = |status| Filter {
            customer_id: Some(orders[1].customer_id),
            status: Some(status),
            ..Filter::default()
        };
        assert_eq!(store.orders(&page(100, None), both("rejected")).await.unwrap().items.len(), 1);
        assert_eq!(store.orders(&page(100, None), both("confirmed")).await.unwrap().items.len(), 0);

        let rejected = Filter { status: Some("rejected"), ..Filter::default() };
        let rejected = store.orders(&page(100, None), rejected).await.unwrap();
        assert_eq!(rejected.items.iter().map(|order| order.id).collect::<Vec<_>>(), [orders[1].id]);
    }
}

#[actix_web::test]
async fn orders_placed_before_a_time_are_listed_also_on_later_pages() {
    for store in stores().await {
        let tea = product(&store, 100).await;
        let mut orders = Vec::new();
        for _ in 0..4 {
            orders.push(place(&store, &[(&tea, 1)]).await.unwrap());
            // Times in ids are in milliseconds.
            let placed = now();
            eventually("a millisecond is over", std::time::Duration::from_secs(5), async || {
                (now() - placed >= time::Duration::milliseconds(2)).then_some(())
            })
            .await;
        }
        let before = Filter { before: Some(time_of(orders[3].id)), ..Filter::default() };
        let first = store.orders(&page(2, None), before).await.unwrap();
        let second = store.orders(&page(2, Some(first.items[1].id)), before).await.unwrap();
        let seen: Vec<_> = first.items.iter().chain(&second.items).map(|order| order.id).collect();
        assert_eq!((seen, second.next_cursor), (vec![orders[2].id, orders[1].id, orders[0].id], None));
    }
}

fn time_of(id: Uuid) -> OffsetDateTime {
    let (seconds, nanoseconds) = id.get_timestamp().unwrap().to_unix();
    OffsetDateTime::from_unix_timestamp(seconds.try_into().unwrap()).unwrap()
        + time::Duration::nanoseconds(nanoseconds.into())
}

#[actix_web::test]
async fn a_page_continues_after_the_last_one_even_if_orders_were_added() {
    for store in stores().await {
        let tea = product(&store, 100).await;
        let mut ids = Vec::new();
        for _ in 0..4 {
            ids.push(place(&store, &[(&tea, 1)]).await.unwrap().id);
        }
        let first = store.orders(&page(2, None), Filter::default()).await.unwrap();
        assert!(first.next_cursor.is_some());
        place(&store, &[(&tea, 1)]).await.unwrap();
        let second = store.orders(&page(2, Some(first.items[1].id)), Filter::default()).await.unwrap();
        let seen: Vec<_> = first.items.iter().chain(&second.items).map(|order| order.id).collect();
        ids.reverse();
        assert_eq!((seen, second.next_cursor), (ids, None));
    }
}

#[actix_web::test]
async fn a_product_is_found_by_part_of_its_name_or_sku_ignoring_case() {
    for store in stores().await {
        let tea = product(&store, 1).await;
        let part_of_sku = tea.product.sku.as_str()[..13].to_uppercase();
        for part in ["GREEN", "een t", &part_of_sku] {
            let found = store.products(&page(10, None), Some(part)).await.unwrap();
            assert_eq!(&found.items[..], std::slice::from_ref(&tea), "{part}");
        }
        for part in ["coffee", "%", "_reen", "green%"] {
            let found = store.products(&page(10, None), Some(part)).await.unwrap();
            assert_eq!(found.items[..], [], "{part}");
        }
        assert_eq!(store.products(&page(10, None), None).await.unwrap().items.len(), 1);
    }
}
