//! `GET /admin/sagas`: the sagas that are not done.

use std::str::FromStr;

use actix_web::HttpResponse;
use actix_web::web::Data;
use serde_json::json;
use shared::auth::Admin;
use shared::request::Params;

use crate::checkout::Progress;
use crate::error::Error;
use crate::store::Store;
use crate::views::SagaView;

/// `running` or `stuck`.
struct State(Progress);

impl FromStr for State {
    type Err = ();

    fn from_str(name: &str) -> Result<Self, ()> {
        Progress::named(name).filter(|progress| *progress != Progress::Done).map(Self).ok_or(())
    }
}

#[utoipa::path(get, path = "/admin/sagas", params(("state" = Option<String>, Query)))]
pub(crate) async fn list_sagas(_: Admin, params: Params, store: Data<Store>) -> Result<HttpResponse, Error> {
    let state = params.optional::<State>("state", "running or stuck")?;
    let sagas = store.sagas(state.map(|State(progress)| progress)).await?;
    let sagas: Vec<_> = sagas.into_iter().map(SagaView::from).collect();
    Ok(HttpResponse::Ok().json(json!({ "sagas": sagas })))
}
