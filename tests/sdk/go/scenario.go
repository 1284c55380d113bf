// The main job with the generated client: create, pair, send, send asynchronously, receive the acknowledgement by
// webhook, read jobs page by page, handle a problem.
package main

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	"example.org/you/kero"
)

const (
	secret  = "a secret of this program"
	id      = "go"
	contact = "491514000301"
)

var (
	lock sync.Mutex
	acks = map[string]kero.MessageAckEvent{}
)

func must[T any](value T, err error) T {
	if err != nil {
		log.Fatal(err)
	}
	return value
}

// The value of a call of the client.
func ok[T any](value T, _ *http.Response, err error) T {
	return must(value, err)
}

// The code of the problem that a call ended in.
func code(err error) string {
	var failure *kero.GenericOpenAPIError
	if !errors.As(err, &failure) {
		log.Fatalf("no problem: %v", err)
	}
	problem, typed := failure.Model().(kero.Problem)
	if !typed {
		log.Fatalf("not typed: %s", failure.Body())
	}
	return problem.Code
}

func check(holds bool, what string, values ...any) {
	if !holds {
		log.Fatalf(what, values...)
	}
}

func until(what string, ask func() bool) {
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if ask() {
			return
		}
	}
	log.Fatalf("waited too long for %s", what)
}

func receive(writer http.ResponseWriter, request *http.Request) {
	body := must(io.ReadAll(request.Body))
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write(body)
	given, _ := hex.DecodeString(request.Header.Get("X-Webhook-Signature"))
	if !hmac.Equal(mac.Sum(nil), given) {
		writer.WriteHeader(http.StatusUnauthorized)
		return
	}
	var event kero.MessageAckEvent
	if err := json.Unmarshal(body, &event); err != nil {
		log.Fatal(err)
	}
	lock.Lock()
	acks[event.Data.CorrelationId] = event
	lock.Unlock()
	writer.WriteHeader(http.StatusNoContent)
}

func simulator(path, body string) {
	answer := must(http.Post(os.Getenv("SIMULATOR_URL")+path, "", strings.NewReader(body)))
	check(answer.StatusCode < 300, "the simulator says %d", answer.StatusCode)
}

func main() {
	listener := must(net.Listen("tcp", "127.0.0.1:0"))
	go func() { _ = http.Serve(listener, http.HandlerFunc(receive)) }()
	simulator("/admin/people", `{"phone":"`+contact+`","name":"Ada"}`)

	configuration := kero.NewConfiguration()
	configuration.Servers = kero.ServerConfigurations{{URL: os.Getenv("KERO_URL")}}
	configuration.AddDefaultHeader("X-API-Key", os.Getenv("KERO_KEY"))
	client := kero.NewAPIClient(configuration)
	ctx := context.Background()

	// create
	wanted := kero.NewCreateInstance(id)
	wanted.SetName("SDK")
	created := ok(client.InstancesAPI.InstanceCreate(ctx).CreateInstance(*wanted).Execute())
	check(created.Data.Status == kero.INSTANCESTATUS_DISCONNECTED, "status %s", created.Data.Status)
	webhook := kero.NewPutWebhook("http://" + listener.Addr().String() + "/")
	webhook.SetSecret(secret)
	webhook.SetEvents([]string{"message_ack"})
	ok(client.WebhookAPI.WebhookUpdate(ctx, id).PutWebhook(*webhook).Execute())

	// provoke a problem and read its code
	_, _, err := client.InstancesAPI.InstanceCreate(ctx).CreateInstance(*wanted).Execute()
	check(code(err) == "instance-exists", "twice: %v", err)
	_, _, err = client.MessagesAPI.MessageSendText(ctx, id).SendText(*kero.NewSendText(contact, "too early")).Execute()
	check(strings.HasPrefix(code(err), "instance-not-"), "early: %v", err)

	// pair
	ok(client.InstancesAPI.InstanceConnect(ctx, id).Execute())
	qr := ok(client.PairingAPI.QrGet(ctx, id).Execute())
	simulator("/admin/mock-phone/scan-qr?phone=491514000300", qr.Code)
	until("the connection", func() bool {
		return ok(client.InstancesAPI.InstanceStatusGet(ctx, id).Execute()).Status == kero.INSTANCESTATUS_CONNECTED
	})

	// send, and send asynchronously
	hello := kero.NewSendText(contact, "Hello")
	sent := ok(client.MessagesAPI.MessageSendText(ctx, id).SendText(*hello).Execute())
	check(sent.Status == kero.SENDSTATUS_SENT, "sent: %s", sent.Status)
	queued := []*kero.SendResult{}
	for n := range 5 {
		name := fmt.Sprintf("go-%d", n)
		text := kero.NewSendText(contact, fmt.Sprintf("Number %d", n))
		request := client.MessagesAPI.MessageSendText(ctx, id).SendText(*text)
		result, answer, err := request.XAsync("true").XCorrelationId(name).IdempotencyKey(name).Execute()
		must(result, err)
		check(answer.StatusCode == http.StatusAccepted, "status %d", answer.StatusCode)
		queued = append(queued, result)
	}

	// each ends in one acknowledgement, by webhook
	for _, result := range queued {
		until("an acknowledgement", func() bool {
			lock.Lock()
			defer lock.Unlock()
			ack, here := acks[result.GetCorrelationId()]
			return here && ack.Data.Status == kero.ACKSTATUS_SENT && ack.Data.GetMessageId() == result.MessageId
		})
	}

	// jobs, page by page
	seen, pages := map[string]bool{}, 0
	for request := client.JobsAPI.JobList(ctx, id).Limit(2); ; pages++ {
		page := ok(request.Execute())
		for _, job := range page.Data {
			seen[job.Id] = true
		}
		if page.NextCursor == nil {
			break
		}
		request = request.Cursor(*page.NextCursor)
	}
	check(len(seen) == 6, "%d jobs", len(seen))
	check(ok(client.JobsAPI.JobGet(ctx, id, "go-0").Execute()).Data.Type == "text", "not a text")
	_, _, err = client.JobsAPI.JobGet(ctx, id, "nobody").Execute()
	check(code(err) == "job-not-found", "%v", err)

	ok(client.InstancesAPI.InstanceDelete(ctx, id).Execute())
	fmt.Printf("go: 6 messages sent, %d acknowledgements verified, %d pages of jobs\n", len(acks), pages+1)
}
