"""httpx, from PyPI."""

import os
import uuid

import httpx

with httpx.Client(base_url=os.environ["BASE"], headers={"Authorization": "Bearer " + os.environ["TOKEN"]}, timeout=20) as client:
    products = client.get("/api/products").raise_for_status()
    assert products.json()["products"], products.text

    order = {"lines": [{"product_id": os.environ["PRODUCT"], "quantity": 1}], "payment_token": "tok_visa"}
    key = {"Idempotency-Key": str(uuid.uuid4())}
    first, again = (client.post("/api/orders", json=order, headers=key) for _ in range(2))
    assert first.status_code == again.status_code == 201, (first.text, again.text)
    id = first.json()["id"]
    assert again.json()["id"] == id, (first.text, again.text)

    with client.stream("GET", f"/api/orders/{id}/events") as stream:
        assert stream.headers["content-type"] == "text/event-stream", stream.headers
        assert "event: order.confirmed" in stream.iter_lines(), "the stream has ended"

    head = client.head("/api/products")
    assert (head.status_code, head.content) == (200, b""), head

    nothing = client.get("/api/nothing")
    assert (nothing.status_code, nothing.headers["content-type"]) == (404, "application/problem+json"), nothing
    assert nothing.json()["code"] == "not_found", nothing.text
