//! Verifies access tokens with the keys that the file holds now, also after a rotation.

use std::sync::Arc;
use std::time::Duration;

use shared::auth::{KeySet, Reread, SigningKeys};
use shared::stop::Stop;

const INTERVAL: Duration = Duration::from_secs(1);

pub async fn run(keys: Arc<Reread<SigningKeys>>, users: KeySet, stop: Stop) {
    while !stop.is_requested() {
        users.replace(keys.get().jwks());
        tokio::select! {
            () = users.wanted() => {}
            () = stop.sleep(INTERVAL) => {}
        }
    }
}
