use shared::db::query;
use shared::request::Paging;
use user_service::domain::{AdminAction, AdminChange};
use user_service::error::Error;
use uuid::Uuid;

use crate::harness::stores;

#[actix_web::test]
async fn the_audit_table_is_written_with_the_change_or_not_at_all_and_never_changed() {
    for store in stores().await {
        let change = |action| AdminChange {
            admin_id: Uuid::now_v7(),
            user_id: Uuid::now_v7(),
            action,
            client: "192.0.2.7".to_owned(),
            trace_id: None,
        };
        let undone = store.db().transaction(async |tx| {
            store.record(tx, &change(AdminAction::Deactivate)).await?;
            Err::<(), _>(Error::NotFound)
        });
        undone.await.unwrap_err();
        for action in [AdminAction::Change(vec!["email", "password"]), AdminAction::Deactivate] {
            store.db().transaction(async |tx| store.record(tx, &change(action)).await).await.unwrap();
        }
        let page = store.audit(&Paging { limit: 10, cursor: None }).await.unwrap();
        let seen: Vec<_> =
            page.items.iter().map(|entry| (entry.action.as_str(), entry.fields.join(" "))).collect();
        assert_eq!(seen, [("deactivate", "status".to_owned()), ("change", "email password".to_owned())]);
        for statement in ["UPDATE audit SET client = ''", "DELETE FROM audit"] {
            assert!(query(statement).execute(store.db()).await.is_err(), "{statement}");
        }
    }
}
