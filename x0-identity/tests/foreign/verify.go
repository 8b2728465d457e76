// Verifies chains with Go's crypto/x509 and the rules that go-spiffe adds to it (x509svid.Verify and IDFromCert).
//
// Each line of standard input is a chain: the moment in seconds since 1970, then certificates in base64, those of the chain (the leaf
// first), "/", and those of the bundle. The answer is a line: "accept", or "refuse" with the reason.
package main

import (
	"bufio"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

func parse(texts []string) ([]*x509.Certificate, error) {
	var certificates []*x509.Certificate
	for _, text := range texts {
		der, err := base64.StdEncoding.DecodeString(text)
		if err != nil {
			return nil, err
		}
		certificate, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, err
		}
		certificates = append(certificates, certificate)
	}
	return certificates, nil
}

func verify(words []string) error {
	seconds, err := strconv.ParseInt(words[0], 10, 64)
	if err != nil {
		return err
	}
	end := 1
	for words[end] != "/" {
		end++
	}
	chain, err := parse(words[1:end])
	if err != nil {
		return err
	}
	roots, intermediates := x509.NewCertPool(), x509.NewCertPool()
	for _, text := range words[end+1:] {
		// An authority that cannot be read is left out.
		if certificates, err := parse([]string{text}); err == nil {
			roots.AddCert(certificates[0])
		}
	}
	leaf := chain[0]
	switch {
	case len(leaf.URIs) != 1 || leaf.URIs[0].Scheme != "spiffe":
		return errors.New("not one URI of the scheme spiffe")
	case leaf.URIs[0].Host != "example.org" || leaf.URIs[0].User != nil || leaf.URIs[0].Port() != "":
		return errors.New("another trust domain")
	case leaf.IsCA:
		return errors.New("the leaf is a CA")
	case leaf.KeyUsage&(x509.KeyUsageCertSign|x509.KeyUsageCRLSign) != 0:
		return errors.New("the leaf may sign certificates or lists")
	}
	for _, certificate := range chain[1:] {
		intermediates.AddCert(certificate)
	}
	for _, usage := range []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth} {
		options := x509.VerifyOptions{
			Roots: roots, Intermediates: intermediates, CurrentTime: time.Unix(seconds, 0), KeyUsages: []x509.ExtKeyUsage{usage},
		}
		if _, err := leaf.Verify(options); err != nil {
			return err
		}
	}
	return nil
}

func main() {
	input := bufio.NewReader(os.Stdin)
	for {
		line, err := input.ReadString('\n')
		if err != nil {
			return
		}
		if err := verify(strings.Fields(line)); err != nil {
			fmt.Println("refuse", strings.ReplaceAll(err.Error(), "\n", " "))
		} else {
			fmt.Println("accept")
		}
	}
}
