package api

import "context"

// Turn is the place of a call among those that one goroutine answers by turns: it goes
// on until it says that the others may.
type Turn interface {
	// Group is the goroutine, as something to compare: calls of one get their turns from
	// it. nil: the call is apart.
	Group() any
	// Later ends the turn; it returns at the next, which comes after those of the others.
	Later()
	// Apart ends the turn for good: the call goes on beside the others, as one that waits
	// for something has to, since they all wait while it has its turn.
	Apart()
}

type turnKey struct{}

// TurnKey finds the Turn of a call in its context.
var TurnKey any = turnKey{}

// TurnOf is the turn that a call has; nil: it has a goroutine of its own.
func TurnOf(ctx context.Context) Turn {
	t, _ := ctx.Value(TurnKey).(Turn)
	return t
}
