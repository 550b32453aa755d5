/** All credentials that a sender needs: made once per simulator and written as the files that Apple and Google hand out. */
import { createPrivateKey, createPublicKey, generateKeyPairSync, type KeyObject } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import {
  type Certificate,
  createApnsClientCertificate,
  createAuthority,
  createServerCertificate,
} from './certificates.ts';

export interface CredentialOptions {
  /** The folder for the files; made when absent. Files already in it are used again. */
  directory: string;
  /** Bundle ids of the team; the client certificate is for the first. */
  apnsTopics: readonly string[];
  apnsKeyId: string;
  apnsTeamId: string;
  fcmProjectId: string;
}

/** Paths are absolute. */
export interface CredentialFiles {
  /** PEM; what a client has to trust. */
  caCertificatePath: string;
  /** `.p8`, as Apple hands it out. */
  apnsKeyPath: string;
  apnsKeyId: string;
  apnsTeamId: string;
  /** PEM certificate and key for certificate authentication. */
  apnsCertificatePath: string;
  apnsCertificateKeyPath: string;
  fcmServiceAccountPath: string;
  fcmProjectId: string;
}

export interface Credentials {
  files: CredentialFiles;
  authority: Certificate;
  serverCertificate: Certificate;
  apnsPublicKey: KeyObject;
  fcmPublicKey: KeyObject;
  fcmClientEmail: string;
  fcmPrivateKeyId: string;
  /** Writes the service account file, once the port of the token endpoint is known. */
  writeServiceAccount(tokenUri: string): void;
}

export function prepareCredentials(options: CredentialOptions): Credentials {
  const directory = resolve(options.directory);
  mkdirSync(directory, { recursive: true });
  const path = (name: string) => join(directory, name);
  const authority = keepCertificate(path('ca'), 'Carillon simulator CA', () =>
    createAuthority('Carillon simulator CA'),
  );
  const serverCertificate = keepCertificate(path('server'), 'localhost', () => createServerCertificate(authority));
  const [apnsTopic = 'dev.carillon.demo'] = options.apnsTopics;
  keepCertificate(path('apns-client'), apnsTopic, () => createApnsClientCertificate(authority, { apnsTopic }));
  const apnsKeyPath = path(`AuthKey_${options.apnsKeyId}.p8`);
  const apnsKey = keepText(apnsKeyPath, () => {
    const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
    return privateKey.export({ type: 'pkcs8', format: 'pem' }) as string;
  });
  const fcmKey = keepText(path('fcm-key.pem'), () => {
    const { privateKey } = generateKeyPairSync('rsa', { modulusLength: 2048 });
    return privateKey.export({ type: 'pkcs8', format: 'pem' }) as string;
  });
  const fcmClientEmail = `carillon@${options.fcmProjectId}.iam.gserviceaccount.com`;
  const fcmPrivateKeyId = 'c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00';
  const fcmServiceAccountPath = path('fcm-service-account.json');
  return {
    files: {
      caCertificatePath: path('ca.pem'),
      apnsKeyPath,
      apnsKeyId: options.apnsKeyId,
      apnsTeamId: options.apnsTeamId,
      apnsCertificatePath: path('apns-client.pem'),
      apnsCertificateKeyPath: path('apns-client.key.pem'),
      fcmServiceAccountPath,
      fcmProjectId: options.fcmProjectId,
    },
    authority,
    serverCertificate,
    apnsPublicKey: createPublicKey(createPrivateKey(apnsKey)),
    fcmPublicKey: createPublicKey(createPrivateKey(fcmKey)),
    fcmClientEmail,
    fcmPrivateKeyId,
    writeServiceAccount(tokenUri) {
      const account = {
        type: 'service_account',
        project_id: options.fcmProjectId,
        private_key_id: fcmPrivateKeyId,
        private_key: fcmKey,
        client_email: fcmClientEmail,
        client_id: '100000000000000000001',
        auth_uri: 'https://accounts.google.com/o/oauth2/auth',
        token_uri: tokenUri,
        universe_domain: 'googleapis.com',
      };
      writeFileSync(fcmServiceAccountPath, `${JSON.stringify(account, undefined, 2)}\n`, { mode: 0o600 });
    },
  };
}

function keepCertificate(path: string, name: string, create: () => Certificate): Certificate {
  const [certificatePath, keyPath] = [`${path}.pem`, `${path}.key.pem`];
  if (existsSync(certificatePath) && existsSync(keyPath)) {
    return { name, certificate: readFileSync(certificatePath, 'utf8'), privateKey: readFileSync(keyPath, 'utf8') };
  }
  const created = create();
  writeFileSync(certificatePath, created.certificate);
  writeFileSync(keyPath, created.privateKey, { mode: 0o600 });
  return created;
}

function keepText(path: string, create: () => string): string {
  if (existsSync(path)) return readFileSync(path, 'utf8');
  const text = create();
  writeFileSync(path, text, { mode: 0o600 });
  return text;
}
