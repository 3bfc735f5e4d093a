package custom

import (
	"strings"

	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/operators"
	"cel.dev/cel-go/common/types"
)

// A path is a field that expressions read, with what they read below it.
type path struct {
	whole bool // all that is below it
	below map[string]*path
}

// metadata is what [workload.ReduceMeta] reads, and what says what an object
// is. Read-only.
var metadata = []string{
	"name", "namespace", "uid", "resourceVersion", "labels", "creationTimestamp",
	"deletionTimestamp", "deletionGracePeriodSeconds", "ownerReferences",
}

func newPath() *path {
	p := &path{}
	p.at("apiVersion").whole, p.at("kind").whole = true, true
	for _, field := range metadata {
		p.at("metadata", field).whole = true
	}
	return p
}

// at returns what is at the end of fields, made where it is not.
func (p *path) at(fields ...string) *path {
	for _, f := range fields {
		if p.below[f] == nil {
			if p.below == nil {
				p.below = map[string]*path{}
			}
			p.below[f] = &path{}
		}
		p = p.below[f]
	}
	return p
}

// addAll adds what an expression reads. What is not a chain of constant names
// from object is walked through: the chains inside are then read whole. A
// variable of a macro that is called object too adds fields that nothing
// reads, and leaves none out.
func (p *path) addAll(e ast.Expr) {
	if fields, ok := fieldsOf(e); ok {
		p.at(fields...).whole = true
		return
	}
	switch e.Kind() {
	case ast.SelectKind: // has(), or a field of what is not a chain
		if fields, ok := fieldsOf(e.AsSelect().Operand()); ok {
			p.at(append(fields, e.AsSelect().FieldName())...) // that it is there, not what is in it
			return
		}
		p.addAll(e.AsSelect().Operand())
	case ast.CallKind:
		call := e.AsCall()
		if call.IsMemberFunction() {
			p.addAll(call.Target())
		}
		for _, arg := range call.Args() {
			p.addAll(arg)
		}
	case ast.ListKind:
		for _, item := range e.AsList().Elements() {
			p.addAll(item)
		}
	case ast.MapKind:
		for _, entry := range e.AsMap().Entries() {
			p.addAll(entry.AsMapEntry().Key())
			p.addAll(entry.AsMapEntry().Value())
		}
	case ast.StructKind:
		for _, field := range e.AsStruct().Fields() {
			p.addAll(field.AsStructField().Value())
		}
	case ast.ComprehensionKind:
		c := e.AsComprehension()
		for _, part := range []ast.Expr{c.IterRange(), c.AccuInit(), c.LoopCondition(), c.LoopStep(), c.Result()} {
			p.addAll(part)
		}
	}
}

// fieldsOf returns the names of a chain such as object.status.?phase and
// object.metadata["name"].
func fieldsOf(e ast.Expr) ([]string, bool) {
	switch e.Kind() {
	case ast.IdentKind:
		return nil, strings.TrimPrefix(e.AsIdent(), ".") == "object"
	case ast.SelectKind:
		s := e.AsSelect()
		if s.IsTestOnly() {
			return nil, false
		}
		fields, ok := fieldsOf(s.Operand())
		return append(fields, s.FieldName()), ok
	case ast.CallKind:
		call := e.AsCall()
		switch call.FunctionName() {
		case operators.Index, operators.OptIndex, operators.OptSelect:
		default:
			return nil, false
		}
		if len(call.Args()) != 2 || call.Args()[1].Kind() != ast.LiteralKind {
			return nil, false
		}
		name, isText := call.Args()[1].AsLiteral().(types.String)
		fields, ok := fieldsOf(call.Args()[0])
		return append(fields, string(name)), ok && isText
	}
	return nil, false
}

// keep returns the part of an object that is read. A field of which only its
// presence is read stays, empty.
func (p *path) keep(object map[string]any) map[string]any {
	if p.whole {
		return object
	}
	kept := make(map[string]any, len(p.below))
	for name, below := range p.below {
		value, ok := object[name]
		if !ok {
			continue
		}
		switch v := value.(type) {
		case map[string]any:
			value = below.keep(v)
		case []any:
			if !below.whole && len(below.below) == 0 {
				value = []any{}
			}
		}
		kept[name] = value
	}
	return kept
}
