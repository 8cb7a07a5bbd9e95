package codec

import "mlc.dev/mlc/runtime/serve/api"

// ParseIndexRequest reads the body of a request for the repository's index, and
// reports whether only what is ready is asked for.
func ParseIndexRequest(text []byte) (ready bool, err error) {
	err = control(text, func(s *scanner, key []byte) (err error) {
		if string(key) == "ready" {
			ready, err = s.bool()
			return err
		}
		return s.skip(1)
	})
	return ready, err
}

// ParseLoadRequest reads the body of a request to load a model. Parameters would
// bring a configuration or files, which the models here do not take.
func ParseLoadRequest(text []byte) error {
	return control(text, func(s *scanner, key []byte) error {
		if string(key) != "parameters" {
			return s.skip(1)
		}
		return s.object(func([]byte) error {
			return api.Errorf(api.Unsupported, "a model is loaded as it is, without parameters")
		})
	})
}

// ParseUnloadRequest reads the body of a request to unload a model. Its parameter,
// unload_dependents, says nothing about models that have none.
func ParseUnloadRequest(text []byte) error {
	return control(text, func(s *scanner, _ []byte) error { return s.skip(1) })
}

func control(text []byte, field func(*scanner, []byte) error) error {
	s := &scanner{b: text}
	if err := s.object(func(key []byte) error { return field(s, key) }); err != nil {
		return err
	}
	return s.end()
}
