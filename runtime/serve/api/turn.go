package api

import "context"

// Turn is the place of a call among those that one goroutine answers by turns: it goes
// on until it says that the others may. It is for the goroutine that answers the call,
// and for no other that the call begins.
type Turn interface {
	// Group is the goroutine; nil: the call is apart.
	Group() *Group
	// Later ends the turn; it returns at the next, which comes after those of the others.
	Later()
	// Apart ends the turn for good: the call goes on beside the others, as one that waits
	// for something has to, since they all wait while it has its turn.
	Apart()
}

// Group is a goroutine that answers calls by turns. Only calls that have theirs touch it.
type Group struct {
	// Kept is what those who answer keep between its calls, each by its own key.
	Kept map[any]any
}

type turnKey struct{}

// TurnKey finds the Turn of a call in its context.
var TurnKey any = turnKey{}

// TurnOf is the turn that a call has; nil: it has a goroutine of its own.
func TurnOf(ctx context.Context) Turn {
	t, _ := ctx.Value(TurnKey).(Turn)
	return t
}
