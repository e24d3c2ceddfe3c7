//! Products and their stock.

use order_service::error::Error;
use order_service::store::{Adjustment, Store};
use shared::db::{DbError, testing};
use uuid::Uuid;

use crate::harness::*;

async fn seed(store: &Store) -> Result<(), DbError> {
    store.db().transaction(async |tx| store.seed(tx).await).await
}

#[actix_web::test]
async fn a_sku_is_unique() {
    for store in stores().await {
        let tea = product(&store, 1).await;
        let mut tx = store.db().begin().await.unwrap();
        let level = 1.try_into().unwrap();
        let refused = store.add_product(&mut tx, tea.product.sku, details("Other", 1), level).await;
        assert!(matches!(refused, Err(Error::SkuTaken)));
    }
}

#[actix_web::test]
async fn an_adjustment_never_makes_stock_negative() {
    for store in stores().await {
        let tea = product(&store, 10).await;
        let adjust = async |product_id: Uuid, delta: i64| {
            let delta = delta.try_into().unwrap();
            let adjustment =
                Adjustment { product_id, delta, reason: "counted".to_owned(), admin_id: Uuid::now_v7() };
            let mut tx = store.db().begin().await.unwrap();
            let adjusted = store.adjust_stock(&mut tx, &adjustment).await?;
            tx.commit().await.unwrap();
            Ok::<_, Error>(adjusted)
        };
        assert_eq!(adjust(tea.product.id, 5).await.unwrap(), 15);
        assert_eq!(adjust(tea.product.id, -15).await.unwrap(), 0);
        assert!(matches!(adjust(tea.product.id, -1).await, Err(Error::NotOnHand)));
        assert!(matches!(adjust(Uuid::now_v7(), 1).await, Err(Error::NotFound)));
        let stock = stock(&store, &tea).await;
        assert_eq!((stock.on_hand, stock.initial, stock.adjusted), (0, 10, -10));
    }
}

#[actix_web::test]
async fn a_change_of_stock_does_not_change_the_product() {
    for store in stores().await {
        let tea = product(&store, 10).await;
        place(&store, &[(&tea, 3)]).await.unwrap();
        let item = store.product(tea.product.id).await.unwrap();
        assert_eq!((item.product, item.available), (tea.product, 7));
    }
}

#[actix_web::test]
async fn two_replicas_that_start_together_add_each_product_once() {
    for url in testing::urls().await {
        let (one, other) = (open(&url).await, open(&url).await);
        let (first, second) = futures_util::join!(seed(&one), seed(&other));
        first.unwrap();
        second.unwrap();
        seed(&one).await.unwrap();
        assert_eq!(one.stock().await.unwrap().len(), 6);
    }
}
