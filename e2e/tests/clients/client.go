// net/http of Go with its defaults.
package main

import (
	"bufio"
	"encoding/json"
	"io"
	"log"
	"net/http"
	"os"
	"strings"
	"time"
)

func call(method, path, body string, headers map[string]string) *http.Response {
	request, err := http.NewRequest(method, os.Getenv("BASE")+path, strings.NewReader(body))
	if err != nil {
		log.Fatal(err)
	}
	request.Header.Set("Authorization", "Bearer "+os.Getenv("TOKEN"))
	for name, value := range headers {
		request.Header.Set(name, value)
	}
	client := http.Client{Timeout: 20 * time.Second}
	answer, err := client.Do(request)
	if err != nil {
		log.Fatal(err)
	}
	return answer
}

func read(answer *http.Response, status int) map[string]any {
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil || answer.StatusCode != status {
		log.Fatal(answer.Status, string(body), err)
	}
	value := map[string]any{}
	if len(body) > 0 {
		if err := json.Unmarshal(body, &value); err != nil {
			log.Fatal(err)
		}
	}
	return value
}

func main() {
	if products, _ := read(call("GET", "/api/products", "", nil), 200)["products"].([]any); len(products) == 0 {
		log.Fatal("no products")
	}

	order := `{"lines":[{"product_id":"` + os.Getenv("PRODUCT") + `","quantity":1}],"payment_token":"tok_visa"}`
	headers := map[string]string{"Content-Type": "application/json", "Idempotency-Key": time.Now().String()}
	first := read(call("POST", "/api/orders", order, headers), 201)["id"]
	if again := read(call("POST", "/api/orders", order, headers), 201)["id"]; first != again {
		log.Fatal(first, again)
	}

	stream := call("GET", "/api/orders/"+first.(string)+"/events", "", nil)
	confirmed := false
	for lines := bufio.NewScanner(stream.Body); !confirmed && lines.Scan(); {
		confirmed = lines.Text() == "event: order.confirmed"
	}
	if !confirmed {
		log.Fatal("the stream has ended")
	}
	stream.Body.Close()

	if head := read(call("HEAD", "/api/products", "", nil), 200); len(head) > 0 {
		log.Fatal(head)
	}

	nothing := call("GET", "/api/nothing", "", nil)
	if kind := nothing.Header.Get("Content-Type"); kind != "application/problem+json" {
		log.Fatal(kind)
	}
	if code := read(nothing, 404)["code"]; code != "not_found" {
		log.Fatal(code)
	}
}
