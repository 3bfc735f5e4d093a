// Package datadogclient holds the rendered monitors and dashboards against the types of Datadog's own client.
package datadogclient
