// sideshow/apns2 with one client, as many goroutines as requests are in flight, and the token made by the library.
package main

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/sideshow/apns2"
	"github.com/sideshow/apns2/token"
	"golang.org/x/net/http2"
)

// The parts of bench/measure.ts's SenderTask that this sender needs.
type task struct {
	URL            string            `json:"url"`
	CAFile         string            `json:"ca_file"`
	KeyFile        string            `json:"key_file"`
	KeyID          string            `json:"key_id"`
	TeamID         string            `json:"team_id"`
	Topic          string            `json:"topic"`
	NotificationID string            `json:"notification_id"`
	Payload        string            `json:"payload"`
	Headers        map[string]string `json:"headers"`
	DeviceTokens   []string          `json:"device_tokens"`
	WarmUp         int               `json:"warm_up"`
	Requests       int               `json:"requests"`
	InFlight       int               `json:"in_flight"`
}

func main() {
	var t task
	text, err := os.ReadFile(os.Args[1])
	must(err)
	must(json.Unmarshal(text, &t))

	key, err := token.AuthKeyFromFile(t.KeyFile)
	must(err)
	client := apns2.NewTokenClient(&token.Token{AuthKey: key, KeyID: t.KeyID, TeamID: t.TeamID})
	client.Host = t.URL
	ca, err := os.ReadFile(t.CAFile)
	must(err)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	transport := client.HTTPClient.Transport.(*http2.Transport)
	transport.TLSClientConfig = &tls.Config{RootCAs: roots}
	// One connection, as the other senders have: what finds no room on it waits.
	transport.StrictMaxConcurrentStreams = true

	priority, err := strconv.Atoi(t.Headers["apns-priority"])
	must(err)
	expiration, err := strconv.ParseInt(t.Headers["apns-expiration"], 10, 64)
	must(err)
	// The same apns-id that the other senders make: a version 8 UUID that ends in the device's number.
	idPrefix := t.NotificationID[:14] + "8" + t.NotificationID[15:24]
	payload := []byte(t.Payload)

	send := func(from, to int) int64 {
		var next, accepted atomic.Int64
		next.Store(int64(from))
		var group sync.WaitGroup
		for range min(t.InFlight, to-from) {
			group.Add(1)
			go func() {
				defer group.Done()
				for {
					n := next.Add(1) - 1
					if n >= int64(to) {
						return
					}
					response, err := client.Push(&apns2.Notification{
						ApnsID:      fmt.Sprintf("%s%012x", idPrefix, n),
						DeviceToken: t.DeviceTokens[n],
						Topic:       t.Topic,
						Priority:    priority,
						CollapseID:  t.Headers["apns-collapse-id"],
						Expiration:  time.Unix(expiration, 0),
						PushType:    apns2.EPushType(t.Headers["apns-push-type"]),
						Payload:     payload,
					})
					must(err)
					if !response.Sent() {
						must(fmt.Errorf("not accepted: %d %s", response.StatusCode, response.Reason))
					}
					accepted.Add(1)
				}
			}()
		}
		group.Wait()
		return accepted.Load()
	}

	send(0, 1)
	send(1, t.WarmUp)
	startedAt, before := time.Now(), cpuSeconds()
	accepted := send(t.WarmUp, t.WarmUp+t.Requests)
	seconds, cpu := time.Since(startedAt).Seconds(), cpuSeconds()-before
	must(json.NewEncoder(os.Stdout).Encode(map[string]any{
		"requests": t.Requests, "accepted": accepted, "seconds": seconds, "cpu_seconds": cpu,
	}))
}

func cpuSeconds() float64 {
	var usage syscall.Rusage
	must(syscall.Getrusage(syscall.RUSAGE_SELF, &usage))
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano()).Seconds()
}

func must(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
