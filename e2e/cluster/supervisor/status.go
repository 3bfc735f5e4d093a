package supervisor

// A State is where a component's process is.
type State string

const (
	// Stopped: never started, or ended because it was asked to.
	Stopped State = "stopped"
	// Starting: the process is there but has not answered as ready yet.
	Starting State = "starting"
	// Running: it has answered as ready.
	Running State = "running"
	// Died: it ended by itself.
	Died State = "died"
)

// Alive tells whether there is a process.
func (s State) Alive() bool { return s == Starting || s == Running }

// Status is what is known of one component.
type Status struct {
	Name  string `json:"name"`
	PID   int    `json:"pid,omitempty"`
	State State  `json:"state"`
	Port  int    `json:"port"`
	Log   string `json:"log"`
	// End is how the last process ended, in Go's words: exit status 1, signal: killed.
	End string `json:"end,omitempty"`
}
