// An HTTP/2 server of Go's standard library, to prove interoperation with.
//
// It answers every POST with its own-value header and a JSON echo of path and body length, and prints its port first.
// On a line "shutdown" it says GOAWAY and ends when every request has been answered; at the end of its input it ends at once.
package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"time"
)

func answer(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil || r.Method != http.MethodPost {
		http.Error(w, "POST only", http.StatusMethodNotAllowed)
		return
	}
	if r.URL.Path == "/slow" {
		time.Sleep(50 * time.Millisecond)
	}
	w.Header().Set("apns-id", r.Header.Get("apns-id"))
	w.Header().Set("x-authorization-length", fmt.Sprint(len(r.Header.Get("authorization"))))
	if r.URL.Path == "/empty" {
		return
	}
	w.WriteHeader(http.StatusBadRequest)
	fmt.Fprintf(w, `{"path":%q,"bodyBytes":%d}`, r.URL.Path, len(body))
}

func main() {
	certificate, err := tls.LoadX509KeyPair(os.Args[1], os.Args[2])
	if err != nil {
		panic(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	server := &http.Server{
		Handler:   http.HandlerFunc(answer),
		TLSConfig: &tls.Config{Certificates: []tls.Certificate{certificate}, NextProtos: []string{"h2"}},
	}
	fmt.Println(listener.Addr().(*net.TCPAddr).Port)
	go func() {
		lines := bufio.NewScanner(os.Stdin)
		for lines.Scan() {
			if lines.Text() == "shutdown" {
				_ = server.Shutdown(context.Background())
			}
		}
		os.Exit(0)
	}()
	_ = server.ServeTLS(listener, "", "")
	select {}
}
