import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { parseNetwork, webhookAddressFault, webhookUrlFault } from '../../domain/webhook-address.ts';

const nowhereElse = { allowedNetworks: [] };
const inside = { allowedNetworks: [parseNetwork('10.0.0.0/8'), parseNetwork('fd00::/8')] };

const refused: [string, string][] = [
  ['127.0.0.1', 'this machine'],
  ['127.8.9.10', 'this machine'],
  ['0.0.0.0', 'unspecified'],
  ['0.1.2.3', 'this network'],
  ['10.0.0.1', 'private'],
  ['172.16.0.1', 'private'],
  ['172.31.255.255', 'private'],
  ['192.168.1.1', 'private'],
  ['100.64.0.1', 'shared by a carrier'],
  ['169.254.1.1', 'link-local'],
  ['169.254.169.254', 'metadata of a cloud'],
  ['192.0.0.1', 'reserved'],
  ['192.0.2.1', 'documentation'],
  ['198.18.0.1', 'benchmarks'],
  ['203.0.113.1', 'documentation'],
  ['224.0.0.1', 'multicast'],
  ['240.0.0.1', 'reserved'],
  ['255.255.255.255', 'broadcast'],
  ['::', 'unspecified'],
  ['::1', 'this machine'],
  ['fe80::1', 'link-local'],
  ['fe80::1%eth0', 'link-local'],
  ['fec0::1', 'site-local'],
  ['fc00::1', 'unique local'],
  ['fd00:ec2::254', 'metadata of a cloud'],
  ['ff02::1', 'multicast'],
  ['2001:db8::1', 'documentation'],
  ['100::1', 'discard'],
  ['::ffff:127.0.0.1', 'IPv4-mapped'],
  ['::ffff:a9fe:a9fe', 'IPv4-mapped'],
  ['::127.0.0.1', 'IPv4-compatible'],
  ['::ffff:0:127.0.0.1', 'IPv4-translated'],
  ['64:ff9b::127.0.0.1', 'NAT64'],
  ['64:ff9b::a00:1', 'NAT64'],
  ['64:ff9b:1::a00:1', 'NAT64 of a network'],
  ['2002:7f00:1::', '6to4'],
  ['2001:0:7f00:1::', 'Teredo'],
  ['localhost', 'no address'],
];

describe('an address that is not public is refused', () => {
  for (const [address, why] of refused) {
    test(`${address}: ${why}`, () => assert.notEqual(webhookAddressFault(address, nowhereElse, false), undefined));
  }
});

test('public ones are allowed, also those that NAT64 leads to; only with TLS', () => {
  for (const address of ['8.8.8.8', '172.32.0.1', '2606:4700::1111', '::ffff:8.8.8.8', '64:ff9b::808:808']) {
    assert.equal(webhookAddressFault(address, nowhereElse, false), undefined, address);
    assert.notEqual(webhookAddressFault(address, nowhereElse, true), undefined, address);
  }
});

test('a network that is allowed is, with and without TLS, in every form of its addresses; others stay refused', () => {
  for (const address of ['10.255.0.1', '::ffff:10.0.0.1', 'fd12::1']) {
    for (const isHttp of [true, false]) assert.equal(webhookAddressFault(address, inside, isHttp), undefined, address);
  }
  for (const address of ['192.168.0.1', '127.0.0.1', 'fc00::1']) {
    assert.notEqual(webhookAddressFault(address, inside, false), undefined, address);
  }
});

test('a URL is https, without user and fragment, and no address that is refused however it is written', () => {
  const faults: [string, RegExp][] = [
    ['http://shop.example', /https/],
    ['file:///etc/passwd', /https/],
    ['shop.example', /https/],
    ['https://a@shop.example', /no user/],
    ['https://shop.example/#x', /no fragment/],
    ['https://2130706433/', /not a public/],
    ['https://0x7f000001/', /not a public/],
    ['https://0177.1/', /not a public/],
    ['https://127.1/', /not a public/],
    ['https://[::ffff:7f00:1]/', /not a public/],
    [`https://shop.example/${'x'.repeat(2_000)}`, /2000/],
  ];
  for (const [url, fault] of faults) assert.match(webhookUrlFault(url, nowhereElse) ?? '', fault, url);
  for (const url of ['https://shop.example:8443/a?b=c', 'https://8.8.8.8/', 'https://[2606:4700::1]/']) {
    assert.equal(webhookUrlFault(url, nowhereElse), undefined, url);
  }
  assert.equal(webhookUrlFault('http://10.0.0.1/', inside), undefined);
  assert.equal(webhookUrlFault('http://shop.example/', inside), undefined, 'the name may lead there');
});
