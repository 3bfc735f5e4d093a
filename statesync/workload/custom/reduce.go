package custom

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/outrider-agent/outrider/statesync"
	"github.com/outrider-agent/outrider/statesync/workload"
)

// maxCause bounds what a failure says of an object, in bytes.
const maxCause = 256

// rules are the expressions of one kind, compiled.
type rules struct {
	kind   string
	states []state // the first that holds decides
	reason, message,
	occurred *expression
	read *path
}

type state struct {
	is   statesync.State
	when *expression
}

func compileRules(r Rules) (*rules, []error) {
	env, err := newEnv()
	if err != nil {
		return nil, []error{&Error{Got: oneLine(err.Error()), Want: "the language of expressions"}}
	}
	c := &compiler{env: env, read: newPath()}
	out := &rules{read: c.read}
	given := false
	for _, s := range stateRules {
		text := s.text(r)
		given = given || text != ""
		if e := c.compile(s.name, text, "bool", cel.BoolType); e != nil {
			out.states = append(out.states, state{s.state, e})
		}
	}
	if !given {
		c.errs = append(c.errs, &Error{Got: "no expression of a state", Want: "one or more of queued, running, succeeded, failed, cancelled"})
	}
	out.reason = c.compile("reason", r.Reason, "string", cel.StringType)
	out.message = c.compile("message", r.Message, "string", cel.StringType)
	out.occurred = c.compile("occurred", r.Occurred, "timestamp, or string in RFC 3339", cel.TimestampType, cel.StringType)
	return out, c.errs
}

// trim is the kind's Trimmer.
func (r *rules) trim(obj runtime.Object) {
	if u, ok := obj.(*unstructured.Unstructured); ok {
		u.Object = r.read.keep(u.Object)
	}
}

// reduce is the kind's Reducer.
func (r *rules) reduce(obj runtime.Object) (*workload.Object, error) {
	u, ok := obj.(*unstructured.Unstructured)
	if !ok {
		return nil, fmt.Errorf("reduce %s: got %T", r.kind, obj)
	}
	o, err := workload.ReduceMeta(r.kind, u)
	if err != nil {
		return nil, err
	}
	if o.Said, err = r.say(u.Object); err != nil {
		return o, fmt.Errorf("reduce %s %s/%s: %w", r.kind, o.Namespace, o.Name, err)
	}
	return o, nil
}

// say evaluates the expressions on an object.
func (r *rules) say(object map[string]any) (workload.Said, error) {
	vars := map[string]any{"object": object}
	var said workload.Said
	for _, s := range r.states {
		holds, err := s.when.holds(vars)
		if err != nil {
			return workload.Said{}, err
		}
		if holds {
			said.State = s.is
			break
		}
	}
	if said.State == "" {
		return said, nil
	}
	var reason, message, occurred error
	said.Reason, reason = r.reason.text(vars, maxReason)
	said.Message, message = r.message.text(vars, maxMessage)
	said.Occurred, occurred = r.occurred.time(vars)
	for _, err := range []error{reason, message, occurred} {
		if err != nil {
			return said, err
		}
	}
	return said, nil
}

// eval returns what the expression gives, nil when there is no expression or
// the object has not what it reads.
func (e *expression) eval(vars map[string]any) (ref.Val, error) {
	if e == nil {
		return nil, nil
	}
	v, _, err := e.program.Eval(vars)
	switch {
	case err != nil && absent(err):
		return nil, nil
	case err != nil:
		return nil, e.failed(err)
	case v.Type() == types.NullType:
		return nil, nil
	}
	return v, nil
}

// absent reports whether an evaluation failed on a field or an item of a list
// that is not there. The library has no type for it, but these three texts.
func absent(err error) bool {
	s := err.Error()
	return strings.HasPrefix(s, "no such key: ") || strings.HasPrefix(s, "index out of bounds: ") ||
		strings.HasPrefix(s, "index '") && strings.Contains(s, "' out of range in list size '")
}

func (e *expression) holds(vars map[string]any) (bool, error) {
	v, err := e.eval(vars)
	if v == nil || err != nil {
		return false, err
	}
	b, ok := v.(types.Bool)
	if !ok {
		return false, e.wrong(v, "bool")
	}
	return bool(b), nil
}

func (e *expression) text(vars map[string]any, limit int) (string, error) {
	v, err := e.eval(vars)
	if v == nil || err != nil {
		return "", err
	}
	s, ok := v.(types.String)
	if !ok {
		return "", e.wrong(v, "string")
	}
	return cut(string(s), limit), nil
}

func (e *expression) time(vars map[string]any) (time.Time, error) {
	v, err := e.eval(vars)
	if v == nil || err != nil {
		return time.Time{}, err
	}
	var t time.Time
	switch v := v.(type) {
	case types.Timestamp:
		t = v.Time
	case types.String:
		if v == "" {
			return t, nil
		}
		if t, err = time.Parse(time.RFC3339, string(v)); err != nil {
			return time.Time{}, e.failed(fmt.Errorf("got %s, want a time in RFC 3339", quote(string(v))))
		}
	default:
		return t, e.wrong(v, "timestamp, or string in RFC 3339")
	}
	if t = t.UTC(); t.Year() < 1 || t.Year() > 9999 { // JSON has no others
		return time.Time{}, e.failed(fmt.Errorf("got year %d, want 1 to 9999", t.Year()))
	}
	return t, nil
}

func (e *expression) wrong(got ref.Val, want string) error {
	return e.failed(fmt.Errorf("got %s, want %s", got.Type().TypeName(), want))
}

// failed says where in the expression it failed, if the library knows.
func (e *expression) failed(cause error) error {
	at := e.name
	var failure *types.Err
	if errors.As(cause, &failure) && failure.NodeID() > 0 {
		if place := e.source.GetStartLocation(failure.NodeID()); place.Line() > 0 {
			at = fmt.Sprintf("%s:%d:%d", e.name, place.Line(), place.Column()+1)
		}
	}
	return errors.New(at + ": " + cut(oneLine(cause.Error()), maxCause))
}
