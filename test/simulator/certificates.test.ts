import assert from 'node:assert/strict';
import { createPrivateKey, X509Certificate } from 'node:crypto';
import { test } from 'node:test';
import { createApnsClientCertificate, createAuthority, createServerCertificate } from '../../simulator/certificates.ts';

const authority = createAuthority('Test CA');

test('a server certificate is signed by its authority and names the loopback addresses', () => {
  const server = createServerCertificate(authority);
  const issuer = new X509Certificate(authority.certificate);
  const certificate = new X509Certificate(server.certificate);
  assert.ok(certificate.checkIssued(issuer));
  assert.ok(certificate.verify(issuer.publicKey));
  assert.ok(certificate.checkPrivateKey(createPrivateKey(server.privateKey)));
  assert.equal(certificate.checkHost('localhost'), 'localhost');
  assert.equal(certificate.checkIP('127.0.0.1'), '127.0.0.1');
  assert.equal(certificate.checkIP('::1'), '::1');
  assert.equal(issuer.ca, true);
  assert.equal(certificate.ca, false);
});

test('an APNs client certificate carries the bundle id where Apple puts it', () => {
  const client = createApnsClientCertificate(authority, { apnsTopic: 'dev.example.app' });
  const certificate = new X509Certificate(client.certificate);
  assert.match(certificate.subject, /^UID=dev\.example\.app$/m);
  assert.ok(certificate.verify(new X509Certificate(authority.certificate).publicKey));
});
