"""http.client of Python's standard library."""

import http.client
import json
import os
import uuid

connection = http.client.HTTPConnection(os.environ["BASE"].removeprefix("http://"), timeout=20)
headers = {"Authorization": "Bearer " + os.environ["TOKEN"]}


def call(method, path, body=None, more=None):
    connection.request(method, path, body, headers | (more or {}))
    answer = connection.getresponse()
    return answer.status, answer.headers, answer.read()


status, _, body = call("GET", "/api/products")
assert status == 200 and json.loads(body)["products"], (status, body)

order = json.dumps({"lines": [{"product_id": os.environ["PRODUCT"], "quantity": 1}], "payment_token": "tok_visa"})
key = {"Idempotency-Key": str(uuid.uuid4()), "Content-Type": "application/json"}
first, again = (call("POST", "/api/orders", order, key) for _ in range(2))
assert first[0] == again[0] == 201, (first, again)
id = json.loads(first[2])["id"]
assert json.loads(again[2])["id"] == id, (first, again)

connection.request("GET", f"/api/orders/{id}/events", headers=headers)
stream = connection.getresponse()
assert stream.headers["Content-Type"] == "text/event-stream", stream.headers
while (line := stream.readline()) != b"event: order.confirmed\n":
    assert line, "the stream has ended"
connection.close()

status, _, body = call("HEAD", "/api/products")
assert (status, body) == (200, b""), (status, body)

status, answered, body = call("GET", "/api/nothing")
assert (status, answered["Content-Type"]) == (404, "application/problem+json"), (status, answered)
assert json.loads(body)["code"] == "not_found", body
