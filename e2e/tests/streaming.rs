//! The gateway streams large bodies and does not buffer them.

#![allow(clippy::unwrap_used, reason = "a test")]

use actix_web::web::{self, Bytes, Payload};
use actix_web::{App, HttpResponse, HttpServer};
use e2e::Stack;
use futures_util::{StreamExt as _, stream};

const SIZE: usize = 50 * 1024 * 1024;
const CHUNK: usize = 64 * 1024;

async fn receive(mut payload: Payload) -> HttpResponse {
    let mut received = 0;
    while let Some(chunk) = payload.next().await {
        received += chunk.unwrap().len();
    }
    HttpResponse::Ok().json(received)
}

async fn send() -> HttpResponse {
    HttpResponse::Ok().streaming(chunks())
}

fn chunks() -> impl futures_util::Stream<Item = Result<Bytes, std::io::Error>> {
    stream::iter((0..SIZE / CHUNK).map(|_| Ok(Bytes::from_static(&[7; CHUNK]))))
}

#[actix_web::test]
async fn fifty_mebibytes_each_way_keep_the_gateway_under_forty_mebibytes_of_memory() {
    let folder = std::env::temp_dir().join(format!("streaming-{}.toml", uuid::Uuid::now_v7()));
    let routes = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../gateway.toml")).unwrap();
    let route = "\n[[routes]]\nid = \"large\"\nprefix = \"/api/large\"\nservice = \"origin\"\n";
    std::fs::write(&folder, routes + route).unwrap();
    let origin = HttpServer::new(|| {
        App::new()
            .route("/health/ready", web::get().to(HttpResponse::Ok))
            .route("/api/large", web::post().to(receive))
            .route("/api/large", web::get().to(send))
    });
    let origin = origin.workers(1).bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", origin.addrs()[0]);
    actix_web::rt::spawn(origin.run());
    let stack = Stack::starting(&[("CONFIG_FILE", folder.to_str().unwrap())]).await;
    stack.register_origin("origin", &url).await;
    stack.healthy().await;

    let large = format!("{}/api/large", stack.public.base);
    let client = awc::Client::builder().timeout(std::time::Duration::from_secs(30)).finish();
    let sent = client.post(&large).send_stream(Box::pin(chunks()));
    assert_eq!(sent.await.unwrap().json::<usize>().await.unwrap(), SIZE);
    let after_request = stack.resident_of("gateway");

    let mut answer = client.get(&large).send().await.unwrap();
    let mut received = 0;
    while let Some(chunk) = answer.next().await {
        received += chunk.unwrap().len();
    }
    assert_eq!(received, SIZE);
    let after_answer = stack.resident_of("gateway");
    println!("the gateway uses {after_request} and {after_answer} bytes after 50 MiB each way");
    assert!(after_request.max(after_answer) < 40 << 20, "{after_request} {after_answer}");
    std::fs::remove_file(folder).unwrap();
}
