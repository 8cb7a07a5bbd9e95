// Package registry serves what the registry of an environment holds: aliases are
// followed as they move.
package registry

import (
	"context"
	"fmt"

	"mlc.dev/mlc/compiler/service"
	"mlc.dev/mlc/runtime/artifact"
	"mlc.dev/mlc/runtime/bundle"
	"mlc.dev/mlc/runtime/serve"
	"mlc.dev/mlc/runtime/state"
)

// Source is a serve.Source over a state and its artifacts.
type Source struct {
	State *state.DB
	Store *artifact.Store
}

var _ serve.Source = (*Source)(nil)

// Resolve looks an alias up.
func (s *Source) Resolve(_ context.Context, ref service.Ref) (serve.Version, error) {
	v, err := s.State.Resolve(ref.String())
	return serve.Version{Number: v.Version, Bundle: v.Bundle}, err
}

// Open reads a bundle, its files held against their digests.
func (s *Source) Open(ctx context.Context, ref service.Ref, v serve.Version) (*bundle.Bundle, error) {
	if err := s.Store.Verify(ctx, v.Bundle, artifact.DigestFile); err != nil {
		return nil, fmt.Errorf("the bundle of %s version %d: %w", ref, v.Number, err)
	}
	return bundle.Open(func(name string) (string, error) { return s.Store.Path(ctx, v.Bundle, name) })
}
