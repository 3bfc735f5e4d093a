package pki

import (
	"fmt"
	"os"
	"strings"

	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/clientcmd/api"
)

// WriteAdminKubeconfig writes the administrator's client configuration for the API server at 127.0.0.1:port to path. Certificates and key are embedded, so the file works from anywhere.
func WriteAdminKubeconfig(path string, files Files, port int) error {
	cert, err := os.ReadFile(files.AdminCert)
	if err != nil {
		return fmt.Errorf("write kubeconfig: %w", err)
	}
	key, err := os.ReadFile(files.AdminKey)
	if err != nil {
		return fmt.Errorf("write kubeconfig: %w", err)
	}
	return writeKubeconfig(path, files, port, &api.AuthInfo{ClientCertificateData: cert, ClientKeyData: key})
}

// WriteComponentKubeconfig writes the components' client configuration, which has a token.
func WriteComponentKubeconfig(path string, files Files, port int) error {
	tokens, err := os.ReadFile(files.Tokens)
	if err != nil {
		return fmt.Errorf("write kubeconfig: %w", err)
	}
	token, _, _ := strings.Cut(string(tokens), ",")
	return writeKubeconfig(path, files, port, &api.AuthInfo{Token: token})
}

func writeKubeconfig(path string, files Files, port int, user *api.AuthInfo) error {
	ca, err := os.ReadFile(files.CACert)
	if err != nil {
		return fmt.Errorf("write kubeconfig: %w", err)
	}
	const name = "devcluster"
	config := api.NewConfig()
	config.Clusters[name] = &api.Cluster{Server: fmt.Sprintf("https://127.0.0.1:%d", port), CertificateAuthorityData: ca}
	config.AuthInfos[name] = user
	config.Contexts[name] = &api.Context{Cluster: name, AuthInfo: name, Namespace: "default"}
	config.CurrentContext = name
	if err := clientcmd.WriteToFile(*config, path); err != nil {
		return fmt.Errorf("write kubeconfig: %w", err)
	}
	return nil
}
