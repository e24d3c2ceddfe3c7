//! `GET /admin/audit`: what admins did to other users.

use actix_web::web::{Data, Json};
use shared::auth::Admin;
use shared::request::Paging;

use crate::error::Error;
use crate::store::Store;
use crate::views::AuditView;

#[utoipa::path(get, path = "/admin/audit")]
pub(crate) async fn show_audit(
    admin: Admin,
    paging: Paging,
    store: Data<Store>,
) -> Result<Json<AuditView>, Error> {
    store.must_be_active_admin(admin.0.id, admin.0.session).await?;
    Ok(Json(store.audit(&paging).await?.into()))
}
