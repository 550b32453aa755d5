import type { Readable } from 'node:stream';
import type { BookExportSettings } from '../domain/book-export.ts';

/** Object storage for finished books. */
export interface BookStore {
  /** For logs, and to know it again. */
  readonly name: string;
  /** What all keys begin with. */
  readonly prefix: string;
  /** Why the last upload failed; undefined: it did not. */
  fault: string | undefined;
  /**
   * Stores an object of any length, over one that is there; no more than two parts of it are in memory. An error of `body` is thrown as it
   * is. @throws {BookStoreError}
   */
  put(key: string, body: Readable | string, contentType: string, stop: AbortSignal): Promise<void>;
  /**
   * Forgets parts that an upload of this object left behind as its process died: the store would keep and charge them. Where it does not
   * let its writers look for them, a rule of the bucket must do the same. @throws {BookStoreError} where nothing can be stored either
   */
  forgetParts(key: string, stop: AbortSignal): Promise<void>;
}

/** The store refused, or did not answer. */
export class BookStoreError extends Error {
  readonly code = 'book_store';
  /** In a word: the store's, or that of the system. */
  readonly fault: string;

  constructor(cause: unknown) {
    const { name, message, code, $metadata } = cause as Error & {
      code?: string;
      $metadata?: { httpStatusCode?: number };
    };
    super(message, { cause });
    this.name = 'BookStoreError';
    const status = $metadata?.httpStatusCode;
    this.fault = `${code ?? name}${status === undefined ? '' : ` (${status})`}`;
  }
}

/** Of S3: at least 5 MiB, and at most 10 000 of an object. */
const partBytes = 8 * 1024 * 1024;

/** Each wait has its end: a store that is silent must not keep an upload for ever. */
const requestHandler = {
  ...{ connectionTimeout: 5_000, socketTimeout: 30_000, requestTimeout: 120_000, throwOnRequestTimeout: true },
};

/** The SDK is loaded with the first upload: workers without one do without its memory. */
export function createBookStore({
  bucket: Bucket,
  prefix,
  endpoint,
  region,
  isPathStyle,
}: BookExportSettings): BookStore {
  const sdk = once(async () => {
    const [s3, { Upload }] = await Promise.all([import('@aws-sdk/client-s3'), import('@aws-sdk/lib-storage')]);
    const client = new s3.S3Client({
      ...(endpoint !== undefined && { endpoint }),
      ...(region !== undefined && { region }),
      ...{ forcePathStyle: isPathStyle, requestHandler },
      // Of other stores, many do not know the checksums that Amazon's does.
      ...{ requestChecksumCalculation: 'WHEN_REQUIRED', responseChecksumValidation: 'WHEN_REQUIRED' },
    });
    return { s3, Upload, client };
  });
  return {
    fault: undefined,
    name: `${endpoint ?? 's3:/'}/${Bucket}/${prefix}`,
    prefix,
    async put(Key, Body, ContentType, stop) {
      const { Upload, client } = await sdk();
      const params = { Bucket, Key, Body, ContentType };
      const upload = new Upload({ client, params, partSize: partBytes, queueSize: 1 });
      const abort = () => void upload.abort();
      stop.addEventListener('abort', abort, { once: true });
      try {
        stop.throwIfAborted();
        await upload.done();
      } catch (error) {
        throw stop.aborted || (typeof Body !== 'string' && Body.errored === error) ? error : new BookStoreError(error);
      } finally {
        stop.removeEventListener('abort', abort);
      }
    },
    async forgetParts(Key, abortSignal) {
      const { s3, client } = await sdk();
      try {
        const { Uploads = [] } = await client.send(new s3.ListMultipartUploadsCommand({ Bucket, Prefix: Key }), {
          abortSignal,
        });
        for (const { UploadId } of Uploads) {
          await client.send(new s3.AbortMultipartUploadCommand({ Bucket, Key, UploadId }), { abortSignal });
        }
      } catch (error) {
        abortSignal.throwIfAborted();
        const fault = new BookStoreError(error);
        if (!/\((403|404|405|501)\)$/.test(fault.fault) || fault.fault.startsWith('NoSuchBucket')) throw fault;
      }
    },
  };
}

function once<T>(make: () => Promise<T>): () => Promise<T> {
  let made: Promise<T> | undefined;
  return () => (made ??= make());
}
