//go:build !linux

package plain

import (
	"context"
	"net"
)

// loop is none here.
type loop struct{}

// Listen leaves all connections to net/http.
func (s *Server) Listen(l net.Listener) net.Listener { return l }

// Shutdown has nothing to end.
func (s *Server) Shutdown(context.Context) error { return nil }
