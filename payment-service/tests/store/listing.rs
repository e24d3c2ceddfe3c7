//! Lists.

use payment_service::store::Filter;
use shared::request::Paging;

use crate::harness::{purchase, replicas};

#[actix_web::test]
async fn a_list_is_newest_first_and_goes_on_where_the_page_before_ended() {
    for replica in replicas().await {
        let mut ids = Vec::new();
        for _ in 0..5 {
            let purchase = purchase();
            replica.authorize(&purchase).await.unwrap();
            ids.insert(0, purchase.id);
        }
        let mut seen = Vec::new();
        let mut cursor = None;
        for _ in 0..3 {
            let paging = Paging { limit: 2, cursor };
            let fetched = replica.store.payments(Filter::default(), &paging).await.unwrap();
            let page = paging.page(fetched, |payment| payment.id);
            seen.extend(page.items.iter().map(|payment| payment.id));
            cursor = seen.last().copied();
            assert_eq!(page.next_cursor.is_none(), seen.len() == 5);
        }
        assert_eq!(seen, ids);
    }
}

#[actix_web::test]
async fn a_list_can_be_narrowed_to_a_customer_and_to_an_order() {
    for replica in replicas().await {
        let (mine, theirs) = (purchase(), purchase());
        replica.authorize(&mine).await.unwrap();
        replica.authorize(&theirs).await.unwrap();
        let paging = Paging { limit: 10, cursor: None };
        for (customer_id, order_id, found) in [
            (None, None, 2),
            (Some(mine.customer_id), None, 1),
            (None, Some(theirs.order_id), 1),
            (Some(mine.customer_id), Some(theirs.order_id), 0),
        ] {
            let filter = Filter { customer_id, order_id };
            assert_eq!(replica.store.payments(filter, &paging).await.unwrap().len(), found, "{filter:?}");
        }
    }
}
