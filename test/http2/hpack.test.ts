import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import {
  HpackDecoder,
  HpackEncoder,
  HpackError,
  type Indexing,
  maxFieldBytes,
  writeInteger,
} from '../../http2/hpack.ts';

type Field = readonly [name: string, value: string];

function decode(decoder: HpackDecoder, block: Buffer): Field[] {
  const fields: Field[] = [];
  decoder.decode(block, 0, block.length, { header: (name, value) => void fields.push([name, value]) });
  return fields;
}

function encode(encoder: HpackEncoder, fields: readonly (readonly [string, string, Indexing])[]): Buffer {
  const target = Buffer.alloc(10 + fields.reduce((sum, [name, value]) => sum + maxFieldBytes(name, value), 0));
  let at = encoder.startBlock(target, 0);
  for (const [name, value, indexing] of fields) at = encoder.field(target, at, name, value, indexing);
  return target.subarray(0, at);
}

const hex = (text: string) => Buffer.from(text.replaceAll(/\s/g, ''), 'hex');

const REQUESTS: Field[][] = [
  [
    [':method', 'GET'],
    [':scheme', 'http'],
    [':path', '/'],
    [':authority', 'www.example.com'],
  ],
  [
    [':method', 'GET'],
    [':scheme', 'http'],
    [':path', '/'],
    [':authority', 'www.example.com'],
    ['cache-control', 'no-cache'],
  ],
  [
    [':method', 'GET'],
    [':scheme', 'https'],
    [':path', '/index.html'],
    [':authority', 'www.example.com'],
    ['custom-key', 'custom-value'],
  ],
];

const COOKIE = 'foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1';
const RESPONSES: Field[][] = [
  [
    [':status', '302'],
    ['cache-control', 'private'],
    ['date', 'Mon, 21 Oct 2013 20:13:21 GMT'],
    ['location', 'https://www.example.com'],
  ],
  [
    [':status', '307'],
    ['cache-control', 'private'],
    ['date', 'Mon, 21 Oct 2013 20:13:21 GMT'],
    ['location', 'https://www.example.com'],
  ],
  [
    [':status', '200'],
    ['cache-control', 'private'],
    ['date', 'Mon, 21 Oct 2013 20:13:22 GMT'],
    ['location', 'https://www.example.com'],
    ['content-encoding', 'gzip'],
    ['set-cookie', COOKIE],
  ],
];

/** The header blocks printed in RFC 7541, Appendix C. */
const EXAMPLES = {
  'C.3, requests': {
    huffman: false,
    tableBytes: 4096,
    lists: REQUESTS,
    blocks: [
      '8286 8441 0f77 7777 2e65 7861 6d70 6c65 2e63 6f6d',
      '8286 84be 5808 6e6f 2d63 6163 6865',
      '8287 85bf 400a 6375 7374 6f6d 2d6b 6579 0c63 7573 746f 6d2d 7661 6c75 65',
    ],
  },
  'C.4, requests with Huffman coding': {
    huffman: true,
    tableBytes: 4096,
    lists: REQUESTS,
    blocks: [
      '8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff',
      '8286 84be 5886 a8eb 1064 9cbf',
      '8287 85bf 4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf',
    ],
  },
  'C.5, responses in a table of 256 octets': {
    huffman: false,
    tableBytes: 256,
    lists: RESPONSES,
    blocks: [
      `4803 3330 3258 0770 7269 7661 7465 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133 2032 303a 3133 3a32 3120 474d 546e
       1768 7474 7073 3a2f 2f77 7777 2e65 7861 6d70 6c65 2e63 6f6d`,
      '4803 3330 37c1 c0bf',
      `88c1 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133 2032 303a 3133 3a32 3220 474d 54c0 5a04 677a 6970 7738 666f 6f3d
       4153 444a 4b48 514b 425a 584f 5157 454f 5049 5541 5851 5745 4f49 553b 206d 6178 2d61 6765 3d33 3630 303b 2076 6572
       7369 6f6e 3d31`,
    ],
  },
  'C.6, responses with Huffman coding in a table of 256 octets': {
    huffman: true,
    tableBytes: 256,
    lists: RESPONSES,
    blocks: [
      `4882 6402 5885 aec3 771a 4b61 96d0 7abe 9410 54d4 44a8 2005 9504 0b81 66e0 82a6 2d1b ff6e 919d 29ad 1718 63c7 8f0b
       97c8 e9ae 82ae 43d3`,
      '4883 640e ffc1 c0bf',
      `88c1 6196 d07a be94 1054 d444 a820 0595 040b 8166 e084 a62d 1bff c05a 839b d9ab 77ad 94e7 821d d7f2 e6c7 b335 dfdf
       cd5b 3960 d5af 2708 7f36 72c1 ab27 0fb5 291f 9587 3160 65c0 03ed 4ee5 b106 3d50 07`,
    ],
  },
};

describe('RFC 7541, Appendix C', () => {
  test('C.1: integers', () => {
    const target = Buffer.alloc(8);
    assert.deepEqual([...target.subarray(0, writeInteger(target, 0, 0, 5, 10))], [10]);
    assert.deepEqual([...target.subarray(0, writeInteger(target, 0, 0, 5, 1337))], [31, 154, 10]);
    assert.deepEqual([...target.subarray(0, writeInteger(target, 0, 0, 8, 42))], [42]);
  });

  test('C.2: every form of a literal is read', () => {
    const single = (block: string) => decode(new HpackDecoder(), hex(block));
    assert.deepEqual(single('400a 6375 7374 6f6d 2d6b 6579 0d63 7573 746f 6d2d 6865 6164 6572'), [
      ['custom-key', 'custom-header'],
    ]);
    assert.deepEqual(single('040c 2f73 616d 706c 652f 7061 7468'), [[':path', '/sample/path']]);
    assert.deepEqual(single('1008 7061 7373 776f 7264 0673 6563 7265 74'), [['password', 'secret']]);
    assert.deepEqual(single('82'), [[':method', 'GET']]);
  });

  for (const [name, { huffman, tableBytes, lists, blocks }] of Object.entries(EXAMPLES)) {
    test(`${name}: decoded`, () => {
      const decoder = new HpackDecoder({ maxTableBytes: tableBytes });
      for (const [i, block] of blocks.entries()) assert.deepEqual(decode(decoder, hex(block)), lists[i]);
    });

    test(`${name}: encoded to the same octets`, () => {
      const encoder = new HpackEncoder({ maxTableBytes: tableBytes, huffman });
      // The examples take the small table as agreed beforehand, so its announcement is not part of them.
      encoder.startBlock(Buffer.alloc(10), 0);
      for (const [i, list] of lists.entries()) {
        const block = encode(
          encoder,
          list.map(([field, value]) => [field, value, 'incremental'] as const),
        );
        assert.equal(block.toString('hex'), hex(blocks[i]!).toString('hex'));
      }
    });
  }
});

describe('the decoder', () => {
  const refuses = (block: string, message: RegExp, decoder = new HpackDecoder()) =>
    assert.throws(
      () => decode(decoder, hex(block)),
      (error) => error instanceof HpackError && message.test(error.message),
    );

  test('refuses malformed blocks by its own error', () => {
    refuses('80', /no field at index 0/);
    refuses('be', /no field at index 62/);
    refuses('ff', /inside an integer/);
    refuses('ffffffffff7f', /too large/);
    refuses('400a6375', /inside a string/);
    refuses('40', /before an integer/);
  });

  test('refuses wrong Huffman padding and the end-of-string symbol', () => {
    refuses('0082 1900', /Huffman/); // 'a' and '1', then zeros
    refuses('0084 ffff ffff', /Huffman/); // the end-of-string symbol
    refuses('0082 1fff', /Huffman/); // eleven ones of padding
  });

  test('refuses a table size update above its limit, or after a field', () => {
    refuses('3fe21f', /above the limit/); // 4097
    refuses('8220', /after a field/);
  });

  test('insists on a size update once its lowered limit was acknowledged', () => {
    const decoder = new HpackDecoder();
    decoder.setMaxTableSize(100);
    refuses('82', /missing table size update/, decoder);
    assert.deepEqual(decode(decoder, hex('3f45 82')), [[':method', 'GET']]);
  });

  test('keeps its table right while it cuts a list that is too long', () => {
    const encoder = new HpackEncoder();
    const decoder = new HpackDecoder({ maxHeaderListBytes: 100 });
    const block = encode(encoder, [
      ['first', 'a', 'incremental'],
      ['second', 'b'.repeat(80), 'incremental'],
      ['third', 'c', 'incremental'],
    ]);
    const seen: string[] = [];
    assert.equal(decoder.decode(block, 0, block.length, { header: (name) => void seen.push(name) }), false);
    assert.deepEqual(seen, ['first']);
    assert.deepEqual(decode(decoder, encode(encoder, [['third', 'c', 'incremental']])), [['third', 'c']]);
  });

  test('on garbage either answers or throws HpackError, and hands on no more than its limit', () => {
    const decoder = new HpackDecoder({ maxHeaderListBytes: 2000 });
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 400 }), (octets) => {
        let listBytes = 0;
        const block = Buffer.from(octets);
        try {
          decoder.decode(block, 0, block.length, {
            header: (name, value) => {
              listBytes += name.length + value.length + 32;
            },
          });
        } catch (error) {
          assert.ok(error instanceof HpackError, String(error));
        }
        assert.ok(listBytes <= 2000);
      }),
      { numRuns: 3000 },
    );
  });
});

describe('encoder and decoder', () => {
  const octetString = fc.uint8Array({ maxLength: 60 }).map((octets) => Buffer.from(octets).toString('latin1'));
  const field = fc.tuple(
    fc.oneof(fc.constantFrom(':status', ':path', 'authorization', 'apns-id', 'etag'), octetString),
    fc.oneof(fc.constantFrom('200', '/', ''), octetString),
    fc.constantFrom<Indexing>('incremental', 'without', 'never'),
  );
  const step = fc.oneof(
    { weight: 5, arbitrary: fc.record({ fields: fc.array(field, { maxLength: 12 }) }) },
    { weight: 1, arbitrary: fc.record({ tableBytes: fc.integer({ min: 0, max: 6000 }) }) },
  );

  test('agree on every list, through any changes of the table size', () => {
    fc.assert(
      fc.property(fc.array(step, { maxLength: 30 }), fc.boolean(), (steps, huffman) => {
        const encoder = new HpackEncoder({ huffman, maxTableBytes: 8192 });
        const decoder = new HpackDecoder({ maxHeaderListBytes: 1 << 20 });
        for (const next of steps) {
          if ('tableBytes' in next) {
            encoder.setMaxTableSize(next.tableBytes);
            decoder.setMaxTableSize(next.tableBytes);
          } else {
            const sent = next.fields.map(([name, value]) => [name, value]);
            assert.deepEqual(decode(decoder, encode(encoder, next.fields)), sent);
          }
        }
      }),
      { numRuns: 500 },
    );
  });

  test('a field remembered by the peer costs one octet from then on; a secret path is never remembered', () => {
    const encoder = new HpackEncoder();
    const list = [
      [':path', '/3/device/00aa', 'never'],
      ['authorization', 'bearer x', 'incremental'],
    ] as const;
    const first = encode(encoder, list);
    const revision = encoder.revision;
    const second = encode(encoder, list);
    assert.equal(first[0]! & 0xf0, 0x10);
    assert.equal(second[second.length - 1], 0x80 | 62);
    assert.equal(encoder.revision, revision);
  });
});
