//! The real program, killed in the middle of its work.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::json;
use shared::testing::Api;
use uuid::Uuid;

use crate::harness::{Ordered, Others, Setup, World, card_network, eventually, registry};

/// A payment-service process; killed when it is dropped.
struct Process(Child);

impl Process {
    fn start(world: &World, keys: &Path) -> Self {
        let port = world.service.base.rsplit(':').next().unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_payment-service"))
            .env("PORT", port)
            .env("DATABASE_URL", &world.setup.database_url)
            .env("REGISTRY_URL", registry(&world.others))
            .env("SERVICE_TOKEN_KEY_FILE", keys.join("service.key"))
            .env("SERVICE_TOKEN_PUBLIC_KEYS", keys)
            .env("CARD_NETWORK_URL", &world.network.base)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self(child)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

/// Starts everything but the service itself, which runs as a process.
async fn around() -> (World, PathBuf) {
    let others = Others::start().await;
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let keys = std::env::temp_dir().join(format!("test-{}", Uuid::now_v7()));
    std::fs::create_dir(&keys).unwrap();
    others.keys.write(&keys, "payment-service", &["order-service"]);
    let service = Api::at(format!("http://{free}"));
    let (network, setup) = (card_network().await, Setup::default());
    let world = World { service, network, others, admin: Uuid::now_v7(), setup };
    (world, keys)
}

async fn ready(world: &World) {
    eventually("the program is ready", async || {
        let reply = world.as_admin().try_get("/api/payments").await?;
        (reply.status == 200).then_some(())
    })
    .await;
}

#[actix_web::test]
async fn a_program_killed_while_it_charges_goes_on_after_its_restart_and_charges_once() {
    let (world, keys) = around().await;
    let process = Process::start(&world, &keys);
    ready(&world).await;
    let (slow, flaky, undone) = (Ordered::new(), Ordered::new(), Ordered::new());
    world.authorize(&flaky, "tok_capture_flaky").await;
    world.event(&flaky, "payment.authorized.v1").await;
    world.authorize(&slow, "tok_slow").await;
    world.authorize(&undone, "tok_slow").await;
    world.void(&undone).await;
    world.capture(&flaky).await;
    eventually("the card network has been asked", async || {
        (!world.statement(&slow).await.is_empty()).then_some(())
    })
    .await;
    drop(process);

    let _process = Process::start(&world, &keys);
    ready(&world).await;
    world.event(&slow, "payment.authorized.v1").await;
    world.capture(&slow).await;
    world.event(&slow, "payment.captured.v2").await;
    world.event(&flaky, "payment.captured.v2").await;
    world.event(&undone, "payment.voided.v1").await;
    for paid in [&slow, &flaky] {
        let charges = world.statement(paid).await;
        assert_eq!(charges.len(), 1);
        assert_eq!((&charges[0]["captured"], &charges[0]["times_captured"]), (&json!(1000), &json!(1)));
    }
    for charge in world.statement(&undone).await {
        assert_eq!((&charge["captured"], &charge["voided"]), (&json!(0), &json!(true)));
    }
    assert_eq!(world.ledger().await["entries"], 4);
}
