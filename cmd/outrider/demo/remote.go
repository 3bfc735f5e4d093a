package demo

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"
)

// The orders that a simulation in another process takes, one a line, and each
// but told with one line of answer.
const (
	orderBegin   = "begin"
	orderTold    = "told"
	orderFigures = "figures"
	orderStop    = "stop"
	orderVerdict = "verdict"
)

// tellEvery is how long what was told waits for more before it is passed on.
const tellEvery = 20 * time.Millisecond

type order struct {
	Do   string `json:"do"`
	Told []Told `json:"told,omitempty"`
}

type answer struct {
	Kubeconfig string   `json:"kubeconfig,omitempty"` // in the first line alone
	Address    string   `json:"address,omitempty"`
	Figures    *Figures `json:"figures,omitempty"`
	Verdict    *Verdict `json:"verdict,omitempty"`
	Error      string   `json:"error,omitempty"`
}

// A world is a simulated cluster that knows what must be told of it.
type world interface {
	Begin() error        // has the scenario begin
	Told(changes []Told) // says what the receiver took; must not block
	Figures() (Figures, error)
	End(judge bool) (Verdict, error) // stops the scenario; with judge, says what came of it all
}

// Obey has a world do what orders say, until they end or ctx does. The first
// line that it writes says where the world is.
func Obey(ctx context.Context, w world, kubeconfig, address string, orders io.Reader, answers io.Writer) error {
	out := json.NewEncoder(answers)
	if err := out.Encode(answer{Kubeconfig: kubeconfig, Address: address}); err != nil {
		return fmt.Errorf("control: %w", err)
	}
	lines := make(chan order)
	ended := make(chan error, 1)
	go func() {
		in := json.NewDecoder(bufio.NewReaderSize(orders, 1<<16))
		for {
			var o order
			if err := in.Decode(&o); err != nil {
				if errors.Is(err, io.EOF) {
					err = nil // who gave the orders has gone
				}
				ended <- err
				return
			}
			select {
			case lines <- o:
			case <-ctx.Done():
				return
			}
		}
	}()
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-ended:
			if err != nil {
				return fmt.Errorf("control: %w", err)
			}
			return nil
		case o := <-lines:
			if o.Do == orderTold {
				w.Told(o.Told)
				continue
			}
			if err := out.Encode(obey(w, o.Do)); err != nil {
				return fmt.Errorf("control: %w", err)
			}
		}
	}
}

func obey(w world, do string) (a answer) {
	var err error
	switch do {
	case orderBegin:
		err = w.Begin()
	case orderFigures:
		var f Figures
		f, err = w.Figures()
		a.Figures = &f
	case orderStop, orderVerdict:
		var v Verdict
		v, err = w.End(do == orderVerdict)
		a.Verdict = &v
	default:
		err = fmt.Errorf("order: got %q, want %s, %s, %s, %s or %s", do, orderBegin, orderTold, orderFigures, orderStop, orderVerdict)
	}
	if err != nil {
		a.Error = err.Error()
	}
	return a
}

// A remote is a world in another process.
type remote struct {
	kubeconfig, address string

	asking sync.Mutex // an order and its answer are one
	in     *json.Decoder
	out    *json.Encoder

	mu   sync.Mutex // guards what follows
	told []Told     // not passed on
}

// newRemote reads the first line of a simulation.
func newRemote(answers io.Reader, orders io.Writer) (*remote, error) {
	r := &remote{in: json.NewDecoder(bufio.NewReader(answers)), out: json.NewEncoder(orders)}
	var first answer
	if err := r.in.Decode(&first); err != nil {
		return nil, fmt.Errorf("simulated cluster: it does not say where it is: %w", err)
	}
	r.kubeconfig, r.address = first.Kubeconfig, first.Address
	return r, nil
}

// run passes on what was told, until ctx ends.
func (r *remote) run(ctx context.Context) error {
	tick := time.NewTicker(tellEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			r.asking.Lock()
			err := r.pass()
			r.asking.Unlock()
			if err != nil && ctx.Err() == nil {
				return err
			}
		}
	}
}

// pass passes on what was told. asking must be held.
func (r *remote) pass() error {
	r.mu.Lock()
	told := r.told
	r.told = nil
	r.mu.Unlock()
	if len(told) == 0 {
		return nil
	}
	if err := r.out.Encode(order{Do: orderTold, Told: told}); err != nil {
		return fmt.Errorf("simulated cluster: %w", err)
	}
	return nil
}

func (r *remote) ask(do string) (answer, error) {
	r.asking.Lock()
	defer r.asking.Unlock()
	if err := r.pass(); err != nil {
		return answer{}, err
	}
	if err := r.out.Encode(order{Do: do}); err != nil {
		return answer{}, fmt.Errorf("simulated cluster: %s: %w", do, err)
	}
	var a answer
	if err := r.in.Decode(&a); err != nil {
		return answer{}, fmt.Errorf("simulated cluster: %s: %w", do, err)
	}
	if a.Error != "" {
		return answer{}, fmt.Errorf("simulated cluster: %s: %s", do, a.Error)
	}
	return a, nil
}

// Begin implements [world].
func (r *remote) Begin() error {
	_, err := r.ask(orderBegin)
	return err
}

// Told implements [world].
func (r *remote) Told(changes []Told) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.told = append(r.told, changes...)
}

// Figures implements [world].
func (r *remote) Figures() (Figures, error) {
	a, err := r.ask(orderFigures)
	if err != nil || a.Figures == nil {
		return Figures{}, err
	}
	return *a.Figures, nil
}

// End implements [world].
func (r *remote) End(judge bool) (Verdict, error) {
	do := orderStop
	if judge {
		do = orderVerdict
	}
	a, err := r.ask(do)
	if err != nil || a.Verdict == nil {
		return Verdict{}, err
	}
	return *a.Verdict, nil
}
