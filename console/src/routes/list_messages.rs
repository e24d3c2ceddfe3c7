//! `GET /api/messages`: what waits and what was given up, of each service with messages.

use actix_web::HttpResponse;
use actix_web::web::Data;
use futures_util::future::{join, join_all};
use serde_json::json;

use super::answer;
use super::operator::Operator;
use crate::clients::admin::Admin;
use crate::clients::overview::Overview;
use crate::domain::EdgeKind;

#[utoipa::path(get, path = "/api/messages", tag = "messages", responses((status = 200)))]
pub(crate) async fn list_messages(
    operator: Operator,
    admin: Data<Admin>,
    overview: Data<Overview>,
) -> HttpResponse {
    let (asker, edges) = (&operator.asker, overview.edges());
    let names: Vec<_> = admin.names().collect();
    let read = names.iter().map(|name| {
        join(admin.read(name, "/admin/outbox", asker), admin.read(name, "/admin/dead-letters", asker))
    });
    let (mut services, mut missing) = (Vec::new(), Vec::new());
    for (name, (outbox, dead)) in names.iter().zip(join_all(read).await) {
        if outbox.is_none() || dead.is_none() {
            missing.push(*name);
        }
        let dead = dead.map_or_else(Vec::new, |mut answer| {
            answer["dead_letters"].as_array_mut().map(std::mem::take).unwrap_or_default()
        });
        let received = || edges.iter().filter(|edge| edge.kind == EdgeKind::Message && edge.to == *name);
        services.push(json!({
            "name": name,
            "outbox": outbox,
            "dead_letters": dead,
            "lag_ms": received().filter_map(|edge| edge.lag_ms).reduce(f64::max),
            "rate": received().map(|edge| edge.rate).sum::<f64>(),
        }));
    }
    answer::json(json!({ "services": services, "missing": missing }))
}
