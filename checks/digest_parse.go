package checks

import (
	"cmp"
	"encoding/json"
	"fmt"
	"mime"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/outrider-agent/outrider/checks/verdict"
)

// Folded is one check of another digest.
type Folded struct {
	// Name is made of [a-z0-9._/-], at most 100 of them, and unique in its digest;
	// empty for the digest's own status.
	Name     string
	Status   verdict.Status
	Message  string           // cleaned, at most 200 bytes; may be empty
	Category verdict.Category // "" where the format has none
}

const (
	maxFolded        = 200
	maxFoldedName    = 100
	maxFoldedMessage = 200
	maxNesting       = 8 // of checks in checks
)

// ParseDigest reads what a health endpoint answered. The first item is the digest's
// own status, without a name; the others are its checks, by name. Of more than 200
// the worst are kept. The formats, as format names them:
//
//	outrider      this agent's: health+json with a fingerprint, and with each check's
//	              category
//	health+json   draft-inadarei-api-health-check: status pass, warn or fail, or a
//	              word that means the same; checks {name: [{status, output}]}
//	spring        Actuator and Micronaut: status UP, DOWN, OUT_OF_SERVICE or UNKNOWN;
//	              components, formerly details, {name: {status, details}}, nested
//	microprofile  status UP or DOWN, checks [{name, status, data}]
//	aspnet        Healthy, Degraded or Unhealthy as text or as the status of entries
//	              or results {name: {status, description, exception}}
//	heptiolabs    {name: "OK" or an error}
//	dropwizard    {name: {healthy, message}}
//	kubernetes    lines such as "[+]ping ok" and "[-]etcd failed: reason withheld"
//	text          one word or line
//	status        nothing but a status code that says enough
//
// The status code counts too: 429 is at least a warning, 500 and more a failure. An
// error says that the answer is no digest: another program's page, or one that asks
// for a password.
func ParseDigest(contentType string, status int, body []byte) (items []Folded, format string, err error) {
	media, _, err := mime.ParseMediaType(contentType)
	if err != nil {
		media, _, _ = strings.Cut(strings.ToLower(contentType), ";")
		media = strings.TrimSpace(media)
	}
	if status == http.StatusUnauthorized || status == http.StatusForbidden || status >= 300 && status < 400 {
		return nil, "", fmt.Errorf("got status %d, want a digest", status)
	}
	text := strings.TrimSpace(string(body))
	p := &digestParser{media: media, status: status}
	switch {
	case strings.HasPrefix(text, "{"):
		err = p.json([]byte(text))
	case media == "text/html" || strings.HasPrefix(text, "<"):
		err = fmt.Errorf("got a page, want a digest%s", begins(body))
	default:
		err = p.text(text)
	}
	if err != nil && status >= 500 {
		// Whoever answers so is in trouble, even without a word of it.
		p.format, p.items, err = "status", nil, nil
		p.own = Folded{Status: verdict.Fail, Message: fmt.Sprintf("status %d", status)}
	}
	if err != nil {
		if status < 200 || status > 299 {
			err = fmt.Errorf("status %d: %w", status, err)
		}
		return nil, "", err
	}
	least := verdict.Pass
	switch {
	case status >= 500:
		least = verdict.Fail
	case status == http.StatusTooManyRequests:
		least = verdict.Warn
	}
	if verdict.Compare(least, p.own.Status) > 0 {
		p.own = Folded{Status: least, Message: cmp.Or(p.own.Message, fmt.Sprintf("status %d", status))}
	}
	return append([]Folded{p.own}, finish(p.items)...), p.format, nil
}

// statusWords are what digests call their statuses, in lower case. Read-only.
var statusWords = map[string]verdict.Status{
	"pass": verdict.Pass, "ok": verdict.Pass, "up": verdict.Pass, "healthy": verdict.Pass, "passing": verdict.Pass,
	"warn": verdict.Warn, "warning": verdict.Warn, "degraded": verdict.Warn,
	"fail": verdict.Fail, "failed": verdict.Fail, "failing": verdict.Fail, "error": verdict.Fail, "down": verdict.Fail,
	"out_of_service": verdict.Fail, "unhealthy": verdict.Fail, "critical": verdict.Fail,
	"unknown": verdict.Unknown,
}

// A digestParser reads one answer.
type digestParser struct {
	media  string
	status int

	format string
	own    Folded
	items  []Folded
}

// text reads what is no JSON.
func (p *digestParser) text(text string) error {
	if strings.HasPrefix(text, "[") {
		return p.lines(text)
	}
	word, _, _ := strings.Cut(text, "\n")
	word = strings.ToLower(strings.Trim(word, " \t\r.!\""))
	p.format = "text"
	known := false
	if p.own.Status, known = statusWords[word]; known {
		if word == "healthy" || word == "unhealthy" || word == "degraded" {
			p.format = "aspnet"
		}
		return nil
	}
	success := p.status >= 200 && p.status <= 299 || p.status == http.StatusTooManyRequests
	// A word such as "pong" does, when the status code says that all is well. A page
	// of lines is something else, such as metrics.
	const line = 200
	if !success || len(text) > line || strings.Contains(text, "\n") || p.media == "application/json" && text != "" {
		return fmt.Errorf("got what is no digest%s", begins([]byte(text)))
	}
	p.own.Message = snippet(text, maxFoldedMessage)
	if text == "" {
		p.format = "status"
	}
	return nil
}

// lines reads what Kubernetes' API server, and this agent, write for people.
func (p *digestParser) lines(text string) error {
	p.format = "kubernetes"
	marks := map[string]verdict.Status{"[+]": verdict.Pass, "[-]": verdict.Fail, "[!]": verdict.Warn, "[?]": verdict.Unknown}
	own := verdict.Pass
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		status, known := marks[line[:min(3, len(line))]]
		if !known {
			continue // the last one sums up
		}
		name, said, _ := strings.Cut(line[3:], " ")
		if status == verdict.Pass {
			said = ""
		}
		own = verdict.Worse(own, status)
		p.add(Folded{Name: name, Status: status, Message: said})
	}
	p.own.Status = own
	if len(p.items) == 0 {
		return fmt.Errorf("got what is no digest%s", begins([]byte(text)))
	}
	return nil
}

// add takes an item, and, before there are too many, drops the best of them.
func (p *digestParser) add(f Folded) {
	f.Message = snippet(f.Message, maxFoldedMessage)
	f.Name = foldedName(f.Name)
	p.items = append(p.items, f)
	if len(p.items) >= 2*maxFolded {
		p.items = keepWorst(p.items)
	}
}

func keepWorst(items []Folded) []Folded {
	slices.SortStableFunc(items, func(a, b Folded) int { return verdict.Compare(b.Status, a.Status) })
	return items[:min(maxFolded, len(items))]
}

// finish sorts the items and makes their names unique.
func finish(items []Folded) []Folded {
	items = keepWorst(items)
	slices.SortStableFunc(items, func(a, b Folded) int { return cmp.Compare(a.Name, b.Name) })
	taken := make(map[string]bool, len(items))
	for i := range items {
		name := items[i].Name
		for n := 2; taken[items[i].Name]; n++ {
			end := "-" + strconv.Itoa(n)
			items[i].Name = name[:min(len(name), maxFoldedName-len(end))] + end
		}
		taken[items[i].Name] = true
	}
	return items
}

// foldedName makes a name of what checks are named with.
func foldedName(name string) string {
	var b strings.Builder
	for _, r := range strings.ToLower(name) {
		switch {
		case b.Len() == maxFoldedName:
		case r >= 'a' && r <= 'z', r >= '0' && r <= '9', strings.ContainsRune("._/-", r):
			b.WriteRune(r)
		case b.Len() > 0 && !strings.HasSuffix(b.String(), "-"):
			b.WriteByte('-')
		}
	}
	return cmp.Or(strings.Trim(b.String(), "-/."), "unnamed")
}

// json reads an object.
func (p *digestParser) json(body []byte) error {
	fields, err := objectOf(body)
	if err != nil {
		return fmt.Errorf("got what is no JSON: %w%s", err, begins(body))
	}
	word, isText := fields.text("status")
	status, known := statusWords[strings.ToLower(word)]
	if !known {
		if p.flat(fields) {
			return nil
		}
		if isText {
			return fmt.Errorf("got status %q, want such as pass, UP or Healthy", snippet(word, 40))
		}
		return fmt.Errorf("got JSON that is no digest%s", begins(body))
	}
	p.own = Folded{Status: status, Message: snippet(fields.message(), maxFoldedMessage)}
	p.format = p.formatOf(strings.ToLower(word), fields)
	p.members("", fields, 0)
	return nil
}

// formatOf tells formats apart by what they call their statuses and checks.
func (p *digestParser) formatOf(word string, fields object) string {
	switch {
	case len(fields.raw("fingerprint")) > 0:
		return "outrider"
	case p.media == "application/health+json":
		return "health+json"
	case word == "healthy" || word == "degraded" || word == "unhealthy":
		return "aspnet"
	case word != "up" && word != "down" && word != "out_of_service" && word != "unknown":
		return "health+json"
	case strings.HasPrefix(string(fields.raw("checks")), "["):
		return "microprofile"
	}
	return "spring"
}

// members adds the checks of a digest or, nested, of a check.
func (p *digestParser) members(prefix string, fields object, depth int) {
	if depth == maxNesting {
		return
	}
	for _, key := range []string{"checks", "components", "entries", "results", "details", "info"} {
		raw := fields.raw(key)
		switch {
		case len(raw) == 0:
		case raw[0] == '[' && (key == "checks" || listed(raw)):
			p.list(prefix, raw, depth)
		case raw[0] == '{':
			all, err := objectOf(raw)
			// Most of these may as well hold a check's own figures. Details are
			// checks where Spring Boot before 2.2 or Micronaut wrote them.
			if err != nil || key != "checks" && key != "components" && !all.areChecks() {
				continue
			}
			for _, f := range all {
				p.named(prefix+f.key, f.value, depth)
			}
			if key != "checks" {
				return // Terminus has the same in info and details
			}
		}
	}
}

// named adds what stands behind a name: a check, several of that name, or a word.
func (p *digestParser) named(name string, raw json.RawMessage, depth int) {
	switch raw[0] {
	case '{':
		if fields, err := objectOf(raw); err == nil {
			p.check(name, fields, depth)
		}
	case '[':
		p.list(name+"/", raw, depth)
	case '"':
		if word, ok := textOf(raw); ok {
			p.add(wordItem(name, word))
		}
	}
}

func wordItem(name, word string) Folded {
	status, known := statusWords[strings.ToLower(word)]
	if known {
		return Folded{Name: name, Status: status}
	}
	return Folded{Name: name, Status: verdict.Unknown, Message: fmt.Sprintf("got status %q, want such as pass, UP or Healthy", snippet(word, 40))}
}

// list adds checks that have their names inside, or are several of one name.
func (p *digestParser) list(prefix string, raw json.RawMessage, depth int) {
	elements, err := listOf(raw)
	if err != nil {
		return
	}
	for _, e := range elements {
		fields, err := objectOf(e)
		if err != nil {
			continue
		}
		name := fields.first("name", "key", "componentName")
		if name == "" && prefix != "" && len(elements) > 1 {
			name = fields.first("componentId", "node")
		}
		p.check(strings.TrimSuffix(prefix+name, "/"), fields, depth)
	}
}

// check adds one check and those nested in it.
func (p *digestParser) check(name string, fields object, depth int) {
	word, isText := fields.text("status")
	if !isText {
		if healthy := string(fields.raw("healthy")); healthy == "false" {
			word = "unhealthy"
		} else if healthy == "true" || len(fields.raw("observedValue")) > 0 {
			word = "pass" // the draft leaves the status out where nothing is wrong
		}
	}
	f := wordItem(name, word)
	if f.Message == "" {
		f.Message = fields.message()
	}
	if category, _ := fields.text("category"); category == string(verdict.Email) || category == string(verdict.Page) {
		f.Category = verdict.Category(category)
	}
	p.add(f)
	p.members(name+"/", fields, depth+1)
}

// flat reads an object of nothing but checks.
func (p *digestParser) flat(fields object) bool {
	if p.status != http.StatusOK && p.status < 500 || p.media != "application/json" && len(fields) == 0 {
		return false
	}
	texts, healths, fine := 0, 0, true
	for _, f := range fields {
		switch f.value[0] {
		case '"':
			texts++
			fine = fine && string(f.value) == `"OK"`
		case '{':
			if one, err := objectOf(f.value); err == nil && len(one.raw("healthy")) > 0 {
				healths++
			}
		}
	}
	switch {
	case healths == len(fields) && healths > 0:
		p.format = "dropwizard"
		for _, f := range fields {
			p.named(f.key, f.value, 0)
		}
	case texts == len(fields) && (fine || p.status == http.StatusServiceUnavailable):
		// heptiolabs answers 200 only when all are OK, so other texts with a 200 are
		// some other document.
		p.format = "heptiolabs"
		for _, f := range fields {
			item := Folded{Name: f.key}
			if said, _ := textOf(f.value); said != "OK" {
				item.Status, item.Message = verdict.Fail, said
			}
			p.add(item)
		}
	default:
		return false
	}
	for _, f := range p.items {
		p.own.Status = verdict.Worse(p.own.Status, f.Status)
	}
	return true
}
