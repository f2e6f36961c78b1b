// Command trial serves HTTP as well as the fault that was built into it lets it: a release for
// trials of rollouts. It takes podinfo's place in an image, and its flags, probes and metrics; a
// fault is for traffic to meet, so probes and metrics stay honest. The fault is one of
//
//	errors:SHARE             that share of requests, 0 to 1, is answered 500
//	errors-once-told         every request is, from when /fail is asked for
//	errors-under-load:RATE   every request is, while more than RATE a second come in
//	latency:MILLISECONDS     every request takes that much longer
//	crash                    the process ends with an error as soon as it has started
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"net/http"
	"os/signal"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Stamped in by the build.
var (
	version = "build-0"
	fault   = ""
)

// Between being told to stop and closing the door, for those who have not heard yet.
const drain = 3 * time.Second

var (
	told     atomic.Bool
	requests = promauto.NewCounterVec(
		prometheus.CounterOpts{Name: "http_requests_total", Help: "Requests answered."},
		[]string{"status"},
	)
	durations = promauto.NewHistogramVec(
		prometheus.HistogramOpts{
			Name:    "http_request_duration_seconds",
			Help:    "How long requests took.",
			Buckets: []float64{.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5},
		},
		[]string{"status"},
	)
)

func main() {
	port := flag.String("port", "9898", "the port to serve")
	flag.String("level", "info", "ignored, as podinfo's is for logs")
	flag.Parse()
	kind, text, _ := strings.Cut(fault, ":")
	amount, err := strconv.ParseFloat(text, 64)
	if err != nil && text != "" {
		log.Fatalf("fault is %q; expected a number behind the colon", fault)
	}
	if kind == "crash" {
		log.Fatal("the fault is crash")
	}

	mux := http.NewServeMux()
	healthy := func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, `{"status":"OK"}`) }
	mux.HandleFunc("/healthz", healthy)
	mux.HandleFunc("/readyz", healthy)
	mux.Handle("/metrics", promhttp.Handler())
	mux.HandleFunc("/fail", func(w http.ResponseWriter, r *http.Request) {
		told.Store(true)
		healthy(w, r)
	})
	served := http.NewServeMux()
	served.HandleFunc("/echo", func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusAccepted)
		_, _ = io.Copy(w, r.Body)
	})
	served.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(map[string]string{"version": "trial", "commit": version})
	})
	mux.Handle("/", measured(faulty(kind, amount, served)))

	server := &http.Server{Addr: ":" + *port, Handler: mux}
	stop, _ := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	done := make(chan struct{})
	go func() {
		<-stop.Done()
		server.SetKeepAlivesEnabled(false)
		time.Sleep(drain)
		_ = server.Shutdown(context.Background())
		close(done)
	}()
	if err := server.ListenAndServe(); err != http.ErrServerClosed {
		log.Fatal(err)
	}
	<-done
}

// faulty puts the fault before a handler.
func faulty(kind string, amount float64, next http.Handler) http.Handler {
	var load rate
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		bad := false
		switch kind {
		case "errors":
			bad = rand.Float64() < amount
		case "errors-once-told":
			bad = told.Load()
		case "errors-under-load":
			bad = load.count(time.Now()) > int(amount)
		case "latency":
			time.Sleep(time.Duration(amount * float64(time.Millisecond)))
		case "":
		default:
			log.Fatalf("fault is %q; expected one that is listed above", fault)
		}
		if bad {
			http.Error(w, "the fault is "+fault, http.StatusInternalServerError)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// rate counts what has come in over the last second.
type rate struct {
	sync.Mutex
	times []time.Time
}

func (r *rate) count(now time.Time) int {
	r.Lock()
	defer r.Unlock()
	r.times = append(r.times, now)
	for now.Sub(r.times[0]) > time.Second {
		r.times = r.times[1:]
	}
	return len(r.times)
}

// answer remembers the status that was written.
type answer struct {
	http.ResponseWriter
	status int
}

func (a *answer) WriteHeader(status int) {
	a.status = status
	a.ResponseWriter.WriteHeader(status)
}

// measured says in each answer who gives it, counts it and times it.
func measured(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		began := time.Now()
		w.Header().Set("X-Version", version)
		a := &answer{w, http.StatusOK}
		next.ServeHTTP(a, r)
		status := strconv.Itoa(a.status)
		requests.WithLabelValues(status).Inc()
		durations.WithLabelValues(status).Observe(time.Since(began).Seconds())
	})
}
