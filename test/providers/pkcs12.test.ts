import assert from 'node:assert/strict';
import { createCipheriv, pbkdf2Sync, X509Certificate } from 'node:crypto';
import { describe, test } from 'node:test';
import { normaliseApnsCertificate } from '../../providers/apns/certificate.ts';
import { CredentialError } from '../../providers/credentials/credential-error.ts';
import { readPkcs12 } from '../../providers/credentials/pkcs12.ts';
import { decryptRc2Cbc } from '../../providers/credentials/rc2.ts';
import { derContext, derInteger, derNull, derObjectId, derOctetString, derSequence } from '../../simulator/der.ts';
import { legacyPkcs12, modernPkcs12 } from './pkcs12-fixtures.ts';

describe('a .p12 file', () => {
  for (const [name, file] of Object.entries({ legacy: legacyPkcs12, modern: modernPkcs12 })) {
    test(`${name}: certificate and key come out and belong together`, () => {
      const own = normaliseApnsCertificate({ certificate: file, password: 'secret' }, new Date());
      assert.equal(own.apnsTopic, 'com.example.app');
      const fromBase64 = normaliseApnsCertificate(
        { certificate: file.toString('base64'), password: 'secret' },
        new Date(),
      );
      assert.deepEqual(fromBase64, own);
    });

    test(`${name}: a wrong password is named as such`, () => {
      for (const password of ['wrong', '']) {
        assert.throws(() => readPkcs12(file, password), { code: 'credential_invalid', field: 'password' });
      }
    });

    test(`${name}: a damaged file is a CredentialError, whatever byte is damaged`, () => {
      for (let at = 0; at < file.length; at += 7) {
        const damaged = Buffer.from(file);
        damaged[at]! ^= 0x55;
        try {
          readPkcs12(damaged, 'secret');
        } catch (error) {
          assert.ok(error instanceof CredentialError, `${at}: ${error}`);
        }
      }
      for (let length = 0; length < file.length; length += 13) {
        assert.throws(() => readPkcs12(file.subarray(0, length), 'secret'), CredentialError);
      }
    });
  }

  test('both hold the same certificate', () => {
    const [one, other] = [legacyPkcs12, modernPkcs12].map((file) => readPkcs12(file, 'secret'));
    assert.deepEqual(one, other);
    assert.match(new X509Certificate(one!.certificates).subject, /UID=com\.example\.app/);
  });

  test('asks for no more work than a second of it, in one key or in many', () => {
    const rounds = (count: number) => {
      const size = Buffer.alloc(4);
      size.writeUInt32BE(count);
      return derInteger(size.subarray(size.findIndex((byte) => byte !== 0)));
    };
    const pbes2 = (count: number) =>
      derSequence(
        derObjectId('1.2.840.113549.1.5.13'),
        derSequence(
          derSequence(
            derObjectId('1.2.840.113549.1.5.12'),
            derSequence(derOctetString(Buffer.alloc(8)), rounds(count)),
          ),
          derSequence(derObjectId('2.16.840.1.101.3.4.1.42'), derOctetString(Buffer.alloc(16))),
        ),
      );
    const encrypted = (count: number, content = Buffer.alloc(16)) =>
      derSequence(
        derObjectId('1.2.840.113549.1.12.10.1.2'),
        derContext(0, derSequence(pbes2(count), derOctetString(content))),
      );
    const safeOf = (bags: Buffer[]) =>
      derSequence(
        derSequence(derObjectId('1.2.840.113549.1.7.1'), derContext(0, derOctetString(derSequence(...bags)))),
      );
    const fileOf = (bags: Buffer[], ...mac: Buffer[]) =>
      derSequence(
        derInteger(3),
        derSequence(derObjectId('1.2.840.113549.1.7.1'), derContext(0, derOctetString(safeOf(bags)))),
        ...mac,
      );
    const macOf = (count: number) =>
      derSequence(
        derSequence(derSequence(derObjectId('1.3.14.3.2.26'), derNull()), derOctetString(Buffer.alloc(20))),
        derOctetString(Buffer.alloc(8)),
        rounds(count),
      );
    const key = pbkdf2Sync('secret', Buffer.alloc(8), 600_000, 32, 'sha1');
    const cipher = createCipheriv('aes-256-cbc', key, Buffer.alloc(16));
    const readable = Buffer.concat([cipher.update('x'), cipher.final()]);
    const files = [
      fileOf([], macOf(100_000_000)),
      fileOf([encrypted(100_000_000)]),
      fileOf(Array.from({ length: 1_000 }, () => encrypted(600_000, readable))),
    ];
    for (const file of files) {
      const startedAt = performance.now();
      assert.throws(() => readPkcs12(file, 'secret'), { code: 'credential_invalid' });
      const ms = performance.now() - startedAt;
      assert.ok(ms < 10_000, `${ms} ms`);
    }
  });
});

describe('RC2', () => {
  /** RFC 2268 §5, those with as many effective bits as the key has. */
  const vectors = [
    ['ffffffffffffffff', '278b27e42e2f0d49', 'ffffffffffffffff'],
    ['3000000000000000', '30649edf9be7d2c2', '1000000000000001'],
    ['88bca90e90875a7f0f79c384627bafb2', '2269552ab0f85ca6', '0000000000000000'],
  ] as const;
  for (const [key, encrypted, plain] of vectors) {
    test(`RFC 2268 vector with a key of ${key.length * 4} bits`, () => {
      // With this vector the block's plain text is a whole block of padding, so the right answer is no text at all.
      const iv = Buffer.from(plain, 'hex').map((byte) => byte ^ 8);
      assert.deepEqual(decryptRc2Cbc(Buffer.from(key, 'hex'), iv, Buffer.from(encrypted, 'hex')), Buffer.alloc(0));
    });
  }
});
