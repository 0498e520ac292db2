// Package api serves an [engine.Engine] in the words of the Docker Engine API: the part of version 1.45 that tests of
// servers use. What is not served answers 404 or 501 with the reason; nothing is accepted and ignored without saying so.
//
// The API is described at https://docs.docker.com/reference/api/engine/version/v1.45/.
package api

import (
	"encoding/json"
	"errors"
	"log"
	"net/http"
	"regexp"
	"strings"
	"sync/atomic"
	"time"

	"complement-tests/internal/engine"
)

// Version is the version of the API that is served, to clients of any version.
const Version = "1.45"

// Server is an http.Handler.
type Server struct {
	engine *engine.Engine
	mux    *http.ServeMux
	active atomic.Int64
	last   atomic.Int64 // when the last request ended, in nanoseconds
}

// New returns a server for an engine.
func New(e *engine.Engine) *Server {
	s := &Server{engine: e, mux: http.NewServeMux()}
	s.last.Store(time.Now().UnixNano())
	routes := map[string]func(http.ResponseWriter, *http.Request) error{
		"GET /_ping": s.ping, // and HEAD

		"POST /containers/create":       s.createContainer,
		"GET /containers/json":          s.listContainers,
		"GET /containers/{id}/json":     s.inspectContainer,
		"GET /containers/{id}/logs":     s.logs,
		"PUT /containers/{id}/archive":  s.extract,
		"POST /containers/{id}/start":   s.start,
		"POST /containers/{id}/stop":    s.stop,
		"POST /containers/{id}/kill":    s.kill,
		"POST /containers/{id}/pause":   s.pause,
		"POST /containers/{id}/unpause": s.unpause,
		"DELETE /containers/{id}":       s.removeContainer,

		"POST /commit":           s.commit,
		"GET /images/json":       s.listImages,
		"DELETE /images/{id...}": s.removeImage, // names of images have slashes

		"POST /networks/create": s.createNetwork,
		"GET /networks":         s.listNetworks,
		"DELETE /networks/{id}": s.removeNetwork,
	}
	for pattern, handle := range routes {
		s.mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			if err := handle(w, r); err != nil {
				s.refuse(w, r, err)
			}
		})
	}
	s.mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		s.refuse(w, r, &engine.Error{Kind: engine.NotFound, Message: r.Method + " " + r.URL.Path + " is not served here"})
	})
	return s
}

var versioned = regexp.MustCompile(`^/v[0-9]+\.[0-9]+/`)

// ServeHTTP serves one request; the version in its path does not matter.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.active.Add(1)
	defer func() {
		s.last.Store(time.Now().UnixNano())
		s.active.Add(-1)
	}()
	if prefix := versioned.FindString(r.URL.Path); prefix != "" {
		r.URL.Path = r.URL.Path[len(prefix)-1:]
		r.URL.RawPath = ""
	}
	s.mux.ServeHTTP(w, r)
}

// Idle is how long nobody has asked for anything.
func (s *Server) Idle() time.Duration {
	if s.active.Load() > 0 {
		return 0
	}
	return time.Since(time.Unix(0, s.last.Load()))
}

func (s *Server) ping(w http.ResponseWriter, _ *http.Request) error {
	w.Header().Set("Api-Version", Version)
	w.Header().Set("Ostype", "linux")
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	_, err := w.Write([]byte("OK"))
	return err
}

// refuse answers an error in the form that Docker clients read.
func (s *Server) refuse(w http.ResponseWriter, r *http.Request, err error) {
	status := http.StatusInternalServerError
	var known *engine.Error
	if errors.As(err, &known) {
		status = map[engine.Kind]int{
			engine.NotFound: http.StatusNotFound, engine.Conflict: http.StatusConflict,
			engine.BadRequest: http.StatusBadRequest, engine.Unsupported: http.StatusNotImplemented,
		}[known.Kind]
	} else {
		log.Printf("shim: %s %s: %v", r.Method, r.URL.Path, err)
	}
	reply(w, status, map[string]string{"message": err.Error()})
}

// reply writes JSON; with a nil body only the status.
func reply(w http.ResponseWriter, status int, body any) {
	if body == nil {
		w.WriteHeader(status)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body) // the client is gone
}

// read reads a JSON body.
func read(r *http.Request, into any) error {
	if err := json.NewDecoder(r.Body).Decode(into); err != nil {
		return badRequest("the body is not the JSON that belongs here: " + err.Error())
	}
	return nil
}

func badRequest(message string) error {
	return &engine.Error{Kind: engine.BadRequest, Message: message}
}

// labelFilter reads the filters of a list; labels are all there is. Docker has two forms: {"label":["a=b"]} and
// {"label":{"a=b":true}}.
func labelFilter(r *http.Request) (engine.Filter, error) {
	text := r.URL.Query().Get("filters")
	if text == "" {
		return nil, nil
	}
	var filters map[string]json.RawMessage
	if err := json.Unmarshal([]byte(text), &filters); err != nil {
		return nil, badRequest("filters: " + err.Error())
	}
	var labels engine.Filter
	for name, raw := range filters {
		if name != "label" {
			return nil, &engine.Error{Kind: engine.Unsupported, Message: "filters by " + name + " are not supported"}
		}
		var list []string
		var set map[string]bool
		if json.Unmarshal(raw, &list) == nil {
			labels = append(labels, list...)
		} else if err := json.Unmarshal(raw, &set); err == nil {
			for label := range set {
				labels = append(labels, label)
			}
		} else {
			return nil, badRequest("filters: " + err.Error())
		}
	}
	return labels, nil
}

// truth reads a boolean of the query as Docker does.
func truth(r *http.Request, name string) bool {
	switch strings.ToLower(r.URL.Query().Get(name)) {
	case "", "0", "no", "false", "none":
		return false
	}
	return true
}
