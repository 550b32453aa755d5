import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { type Platform, type ProviderName, platforms } from '../../domain/device.ts';
import type { JsonObject, JsonValue } from '../../domain/json.ts';
import type { Message } from '../../domain/message.ts';
import { buildApnsContent } from '../../providers/apns/payload.ts';
import { buildFcmContent } from '../../providers/fcm/payload.ts';
import { measureMessage } from '../../providers/payload/check.ts';
import { PayloadError } from '../../providers/payload/payload-error.ts';
import { readFcmMessage } from '../../simulator/fcm/message.ts';

const notificationId = '01890000-0000-7000-8000-000000000001';
const now = new Date('2026-03-01T12:00:00Z');
const inSeconds = (seconds: number): Date => new Date(now.getTime() + seconds * 1000);

const apns = (message: Message, expiresAt?: Date) =>
  buildApnsContent({ notificationId, message, ...(expiresAt && { expiresAt }) });
const fcm = (message: Message, expiresAt?: Date) =>
  buildFcmContent({ notificationId, message, ...(expiresAt && { expiresAt }) }, now).message;

function at(value: JsonValue | undefined, ...path: string[]): JsonValue | undefined {
  return path.reduce<JsonValue | undefined>((inner, key) => (inner as JsonObject | undefined)?.[key], value);
}

function refusal(provider: ProviderName, message: Message): PayloadError {
  try {
    measureMessage(message, provider);
  } catch (error) {
    assert.ok(error instanceof PayloadError, String(error));
    return error;
  }
  throw new assert.AssertionError({ message: `${provider} took it` });
}

const full: Message = {
  title: 'Title',
  subtitle: 'Subtitle',
  body: 'Body',
  imageUrl: 'https://cdn.example/i.png',
  iconUrl: 'https://cdn.example/icon.png',
  deepLink: 'https://app.example/offer/1',
  data: { count: 1, name: 'x' },
  badge: 0,
  sound: 'default',
  category: 'OFFER',
  threadId: 'offers',
  collapseId: 'offer-1',
  ttlSeconds: 90,
  priority: 'high',
};

describe('every field of the message reaches the payload', () => {
  test('APNs', () => {
    const content = apns(full, inSeconds(90));
    assert.deepEqual(content.payload, {
      aps: {
        alert: { title: 'Title', subtitle: 'Subtitle', body: 'Body' },
        'mutable-content': 1,
        badge: 0,
        sound: 'default',
        category: 'OFFER',
        'thread-id': 'offers',
      },
      count: 1,
      name: 'x',
      image_url: 'https://cdn.example/i.png',
      nid: notificationId,
      deep_link: 'https://app.example/offer/1',
      icon_url: 'https://cdn.example/icon.png',
    });
    assert.deepEqual(content.headers, {
      'apns-push-type': 'alert',
      'apns-priority': '10',
      'apns-expiration': String(inSeconds(90).getTime() / 1000),
      'apns-collapse-id': 'offer-1',
    });
    assert.equal(content.payloadBytes, Buffer.byteLength(JSON.stringify(content.payload)));
  });

  test('FCM', () => {
    assert.deepEqual(fcm(full, inSeconds(90)), {
      notification: { title: 'Title', body: 'Body', image: 'https://cdn.example/i.png' },
      data: {
        count: '1',
        name: 'x',
        nid: notificationId,
        deep_link: 'https://app.example/offer/1',
        icon_url: 'https://cdn.example/icon.png',
      },
      android: {
        priority: 'HIGH',
        ttl: '90s',
        collapse_key: 'offer-1',
        notification: { tag: 'offer-1', sound: 'default', notification_count: 0 },
      },
      apns: {
        headers: {
          'apns-push-type': 'alert',
          'apns-priority': '10',
          'apns-expiration': String(inSeconds(90).getTime() / 1000),
          'apns-collapse-id': 'offer-1',
        },
        payload: {
          aps: {
            alert: { title: 'Title', subtitle: 'Subtitle', body: 'Body' },
            badge: 0,
            sound: 'default',
            category: 'OFFER',
            'thread-id': 'offers',
            'mutable-content': 1,
          },
        },
        fcm_options: { image: 'https://cdn.example/i.png' },
      },
      webpush: {
        headers: { Urgency: 'high', TTL: '90' },
        notification: { tag: 'offer-1', icon: 'https://cdn.example/icon.png' },
        fcm_options: { link: 'https://app.example/offer/1' },
      },
    });
  });

  test('without a collapse id of its own, a repeat still replaces the first copy, and Android is not throttled', () => {
    assert.equal(apns({ title: 't' }).headers['apns-collapse-id'], notificationId);
    const message = fcm({ title: 't' });
    assert.equal(at(message, 'android', 'notification', 'tag'), notificationId);
    assert.equal(at(message, 'android', 'collapse_key'), undefined);
    assert.equal(at(message, 'apns', 'headers', 'apns-collapse-id'), notificationId);
  });

  test('overrides come last', () => {
    const payload = {
      aps: { 'interruption-level': 'time-sensitive', sound: null, alert: { 'loc-key': 'K' } },
      extra: [1, null],
    };
    const content = apns({ title: 't', sound: 'default', apns: { payload, headers: { 'APNS-Priority': '1' } } });
    assert.deepEqual(content.payload.aps, {
      alert: { title: 't', 'loc-key': 'K' },
      'interruption-level': 'time-sensitive',
    });
    assert.deepEqual(content.payload.extra, [1, null]);
    assert.equal(content.headers['apns-priority'], '1');

    const message = fcm({
      title: 't',
      collapseId: 'c',
      fcm: { android: { collapseKey: 'other', notification: { channelId: 'news' } }, data: { camelCase: 'kept' } },
    });
    assert.equal(at(message, 'android', 'collapse_key'), 'other');
    assert.equal(at(message, 'android', 'collapseKey'), undefined);
    assert.equal(at(message, 'android', 'notification', 'channel_id'), 'news');
    assert.equal(at(message, 'android', 'notification', 'tag'), 'c');
    assert.equal(at(message, 'data', 'camelCase'), 'kept');
  });

  test('an override cannot choose the recipient, the id or the credential', () => {
    assert.equal(refusal('fcm', { title: 't', fcm: { token: 'x' } }).field, 'fcm.token');
    assert.equal(refusal('fcm', { title: 't', fcm: { topic: 'all' } }).field, 'fcm.topic');
    assert.equal(refusal('fcm', { title: 't', fcm: { data: { nid: 'x' } } }).field, 'fcm.data.nid');
    assert.equal(refusal('apns', { title: 't', apns: { payload: { nid: 'x' } } }).field, 'apns.payload.nid');
    for (const name of ['authorization', ':path', 'apns-id', 'content-length', 'apns-push-type']) {
      assert.equal(refusal('apns', { title: 't', apns: { headers: { [name]: 'x' } } }).field, `apns.headers.${name}`);
    }
    assert.equal(
      refusal('apns', { title: 't', apns: { headers: { 'apns-topic': 'a\r\nauthorization: x' } } }).field,
      'apns.headers.apns-topic',
    );
  });

  test('a data key named __proto__ is data', () => {
    const data = JSON.parse('{"__proto__": {"x": 1}}') as Record<string, JsonValue>;
    assert.match(JSON.stringify(apns({ title: 't', data }).payload), /"__proto__":\{"x":1\}/);
    assert.match(JSON.stringify(fcm({ title: 't', data })), /"__proto__":"\{\\"x\\":1\}"/);
  });
});

describe('0 and the empty text are values', () => {
  test('badge 0 is sent as 0, an absent one is absent', () => {
    assert.deepEqual(apns({ badge: 0 }).payload.aps, { badge: 0 });
    assert.equal(at(fcm({ title: 't', badge: 0 }), 'apns', 'payload', 'aps', 'badge'), 0);
    assert.equal(at(fcm({ title: 't', badge: 0 }), 'android', 'notification', 'notification_count'), 0);
    assert.deepEqual(apns({ title: 't' }).payload.aps, { alert: { title: 't' } });
    assert.equal(at(fcm({ title: 't' }), 'android', 'notification', 'notification_count'), undefined);
  });

  test('an empty body is sent', () => {
    assert.deepEqual(at(apns({ body: '' }).payload, 'aps', 'alert'), { body: '' });
    assert.deepEqual(fcm({ body: '' }).notification, { body: '' });
  });

  test('a badge that is no count is refused', () => {
    for (const badge of [-1, 1.5, Number.NaN]) assert.equal(refusal('apns', { badge }).field, 'badge');
  });
});

describe('size is counted in bytes of the final JSON', () => {
  const fill = (provider: ProviderName, bytes: number, extra: Message = {}): Message => {
    const empty = measureMessage({ ...extra, body: '' }, provider);
    return { ...extra, body: 'x'.repeat(bytes - empty) };
  };

  for (const [provider, limit, extra] of [
    ['apns', 4096, {}],
    ['apns', 5120, { pushType: 'voip' }],
    ['fcm', 4096, {}],
  ] as const) {
    test(`${provider} ${extra.pushType ?? ''}: exactly ${limit} bytes pass, one more does not`, () => {
      assert.equal(measureMessage(fill(provider, limit, extra), provider), limit);
      const error = refusal(provider, fill(provider, limit + 1, extra));
      assert.equal(error.field, 'message');
      assert.match(error.message, new RegExp(`${limit + 1} bytes, ${limit}`));
    });
  }

  test('1400 characters of three bytes are too many', () => {
    const body = '漢'.repeat(1400);
    assert.match(refusal('apns', { body }).message, /has 42\d\d bytes/);
    assert.match(refusal('fcm', { body }).message, /has 42\d\d bytes/);
  });

  test('text written as escapes in the request counts the same', () => {
    const escaped = JSON.parse(`"${'\\u6f22'.repeat(10)}"`) as string;
    assert.equal(measureMessage({ body: escaped }, 'apns'), measureMessage({ body: '漢'.repeat(10) }, 'apns'));
  });

  test('what fits APNs with room for the tag, which Android gets too, also fits FCM', () => {
    measureMessage(fill('apns', 4096 - 45), 'fcm');
  });
});

describe('data values', () => {
  const data = { count: 1, ok: true, nested: { a: 1 }, list: [1, 'b'], none: null, text: 'x' };

  test('keep their types for APNs', () => {
    const { aps: _aps, nid: _nid, ...rest } = apns({ title: 't', data }).payload;
    assert.deepEqual(rest, data);
  });

  test('become text for FCM, null left out', () => {
    assert.deepEqual(fcm({ title: 't', data }).data, {
      count: '1',
      ok: 'true',
      nested: '{"a":1}',
      list: '[1,"b"]',
      text: 'x',
      nid: notificationId,
    });
  });

  test('an override must give text', () => {
    assert.equal(refusal('fcm', { title: 't', fcm: { data: { n: 1 } } }).field, 'fcm.data.n');
    assert.equal(refusal('fcm', { title: 't', fcm: { android: { data: { n: 1 } } } }).field, 'fcm.android.data.n');
  });
});

describe('reserved data keys', () => {
  const googleLike = ['my_google', 'google_id', 'google', 'gcm', 'gcmId', 'gcm.id', 'gcm.notificationId'];
  for (const key of ['from', 'message_type', 'google.c.id', 'google.', 'gcm.notification.title']) {
    test(`${key} is refused for FCM, by name`, () => {
      const error = refusal('fcm', { title: 't', data: { [key]: 'x' } });
      assert.equal(error.field, `data.${key}`);
      assert.match(error.message, new RegExp(key.replaceAll('.', '\\.')));
      assert.equal(refusal('fcm', { title: 't', fcm: { data: { [key]: 'x' } } }).field, `fcm.data.${key}`);
      measureMessage({ title: 't', data: { [key]: 'x' } }, 'apns');
    });
  }
  for (const key of ['notification', 'title', 'fromage', 'message', 'priority', 'collapse_key', ...googleLike]) {
    test(`${key} is a key like any other`, () => {
      for (const provider of ['apns', 'fcm'] as const) measureMessage({ title: 't', data: { [key]: 'x' } }, provider);
    });
  }
  test('aps cannot be overwritten by data', () => {
    assert.equal(refusal('apns', { title: 't', data: { aps: {} } }).field, 'data.aps');
    measureMessage({ title: 't', data: { aps: 'x' } }, 'fcm');
  });
  test('our own keys cannot be overwritten, and are free where we do not use them', () => {
    for (const provider of ['apns', 'fcm'] as const) {
      assert.equal(refusal(provider, { title: 't', data: { nid: 'x' } }).field, 'data.nid');
      assert.equal(
        refusal(provider, { title: 't', deepLink: 'a://b', data: { deep_link: 'x' } }).field,
        'data.deep_link',
      );
      measureMessage({ title: 't', data: { deep_link: 'x' } }, provider);
    }
  });
});

describe('push type, priority and content agree', () => {
  const headersOf = (message: Message) => {
    const { 'apns-push-type': type, 'apns-priority': priority } = apns(message).headers;
    return `${type} ${priority}`;
  };

  test('silent is background at 5 and shows nothing', () => {
    const message: Message = { silent: true, data: { sync: 1 } };
    assert.equal(headersOf(message), 'background 5');
    assert.deepEqual(apns(message).payload.aps, { 'content-available': 1 });
    const built = fcm(message);
    assert.equal(built.notification, undefined);
    assert.equal(at(built, 'android', 'notification'), undefined);
    assert.equal(at(built, 'android', 'priority'), 'NORMAL');
    assert.equal(at(built, 'apns', 'headers', 'apns-push-type'), 'background');
    assert.equal(at(built, 'apns', 'headers', 'apns-priority'), '5');
    assert.equal(at(built, 'apns', 'payload', 'aps', 'content-available'), 1);
  });

  test('everything else is alert, at 10 unless told otherwise', () => {
    assert.equal(headersOf({ title: 't' }), 'alert 10');
    assert.equal(headersOf({ badge: 3 }), 'alert 10');
    assert.equal(headersOf({ sound: 'default' }), 'alert 10');
    assert.equal(headersOf({ title: 't', priority: 'normal' }), 'alert 5');
    const both = { title: 't', apns: { payload: { aps: { 'content-available': 1 } } } };
    assert.equal(headersOf(both), 'alert 10');
    assert.equal(at(apns(both).payload, 'aps', 'content-available'), 1);
  });

  test('push type background means silent', () => {
    assert.deepEqual(apns({ pushType: 'background' }).payload.aps, { 'content-available': 1 });
  });

  for (const [name, message, field] of [
    ['silent with high priority', { silent: true, priority: 'high' }, 'priority'],
    ['silent with a title', { silent: true, title: 't' }, 'title'],
    ['silent with an empty body', { silent: true, body: '' }, 'body'],
    ['silent with badge 0', { silent: true, badge: 0 }, 'badge'],
    ['silent with a sound', { silent: true, sound: 'default' }, 'sound'],
    ['silent as voip', { silent: true, pushType: 'voip' }, 'push_type'],
  ] as const) {
    test(`refused for both: ${name}`, () => {
      assert.equal(refusal('apns', message).field, field);
      assert.equal(refusal('fcm', message).field, field);
    });
  }

  test('refused for APNs: overrides that contradict', () => {
    const silent: Message = { silent: true };
    const badge = { apns: { payload: { aps: { badge: 1 } } } };
    const priority = { apns: { headers: { 'apns-priority': '10' } } };
    const asleep = { apns: { payload: { aps: { 'content-available': 0 } } } };
    assert.equal(refusal('apns', { ...silent, ...badge }).field, 'apns.payload.aps.badge');
    assert.equal(refusal('apns', { ...silent, ...priority }).field, 'apns.headers.apns-priority');
    assert.equal(refusal('apns', { ...silent, ...asleep }).field, 'apns.payload.aps.content-available');
    assert.equal(
      refusal('apns', { title: 't', apns: { headers: { 'apns-priority': '9' } } }).field,
      'apns.headers.apns-priority',
    );
  });

  test('an alert that shows nothing is refused for APNs, and is a data message for FCM', () => {
    assert.equal(refusal('apns', { data: { a: 1 } }).field, 'body');
    const message = fcm({ data: { a: 1 } });
    assert.equal(message.notification, undefined);
    assert.equal(at(message, 'android', 'priority'), 'HIGH');
    assert.equal(at(message, 'apns', 'headers', 'apns-priority'), '5');
  });

  test('a live activity must say what happens and when', () => {
    const message: Message = { pushType: 'liveactivity', apns: { payload: { aps: { event: 'update' } } } };
    assert.equal(refusal('apns', message).field, 'apns.payload.aps.timestamp');
  });
});

describe('expiry', () => {
  test('is whole seconds for APNs, rounded down', () => {
    assert.equal(
      apns({ title: 't', ttlSeconds: 121 }, inSeconds(120.4)).headers['apns-expiration'],
      String(now.getTime() / 1000 + 120),
    );
  });
  test('is the rest of the time for FCM', () => {
    assert.equal(at(fcm({ title: 't', ttlSeconds: 90.5 }, inSeconds(90.5)), 'android', 'ttl'), '90s');
    assert.equal(at(fcm({ title: 't', ttlSeconds: 600 }, inSeconds(0.3)), 'android', 'ttl'), '1s');
  });
  test('0 stays 0: one attempt', () => {
    assert.equal(apns({ title: 't', ttlSeconds: 0 }, now).headers['apns-expiration'], '0');
    const message = fcm({ title: 't', ttlSeconds: 0 }, now);
    assert.equal(at(message, 'android', 'ttl'), '0s');
    assert.equal(at(message, 'webpush', 'headers', 'TTL'), '0');
    assert.equal(at(message, 'apns', 'headers', 'apns-expiration'), '0');
  });
  test('is absent when nobody asked for one', () => {
    assert.equal(apns({ title: 't' }).headers['apns-expiration'], undefined);
    assert.equal(at(fcm({ title: 't' }), 'android', 'ttl'), undefined);
  });
  test('four weeks are the most', () => {
    measureMessage({ title: 't', ttlSeconds: 2_419_200 }, 'fcm');
    for (const ttlSeconds of [2_419_201, -1, Number.NaN, Number.POSITIVE_INFINITY]) {
      for (const provider of ['apns', 'fcm'] as const)
        assert.equal(refusal(provider, { title: 't', ttlSeconds }).field, 'ttl');
    }
  });
});

describe('the collapse id', () => {
  test('has at most 64 bytes, not characters', () => {
    measureMessage({ title: 't', collapseId: 'x'.repeat(64) }, 'apns');
    for (const collapseId of ['x'.repeat(65), '漢'.repeat(22), '', 'a\nb', ' a']) {
      for (const provider of ['apns', 'fcm'] as const)
        assert.equal(refusal(provider, { title: 't', collapseId }).field, 'collapse_id');
    }
  });
  test('obeys one rule wherever it enters', () => {
    for (const collapseId of ['x'.repeat(65), '漢'.repeat(22), '', 'a\nb', ' a']) {
      assert.equal(
        refusal('apns', { title: 't', apns: { headers: { 'apns-collapse-id': collapseId } } }).field,
        'apns.headers.apns-collapse-id',
      );
      assert.equal(
        refusal('fcm', { title: 't', fcm: { android: { collapseKey: collapseId } } }).field,
        'fcm.android.collapse_key',
      );
      assert.equal(
        refusal('fcm', { title: 't', fcm: { apns: { headers: { 'APNS-Collapse-Id': collapseId } } } }).field,
        'fcm.apns.headers.apns-collapse-id',
      );
    }
    assert.equal(
      refusal('fcm', { title: 't', fcm: { android: { collapse_key: 7 } } }).field,
      'fcm.android.collapse_key',
    );
  });
  test('that no header can carry becomes the same hash for every way to Apple, and stays as it is for Android', () => {
    const collapseId = 'Spielstand Köln';
    const hash = apns({ title: 't', collapseId }).headers['apns-collapse-id'];
    assert.match(hash!, /^[\w-]{43}$/);
    const headers = { 'apns-collapse-id': collapseId };
    assert.equal(apns({ title: 't', apns: { headers } }).headers['apns-collapse-id'], hash);
    assert.equal(at(fcm({ title: 't', collapseId }), 'apns', 'headers', 'apns-collapse-id'), hash);
    assert.equal(at(fcm({ title: 't', fcm: { apns: { headers } } }), 'apns', 'headers', 'apns-collapse-id'), hash);
    assert.equal(at(fcm({ title: 't', collapseId }), 'android', 'collapse_key'), collapseId);
  });
  test('is derived only where something is shown', () => {
    assert.equal(apns({ silent: true }).headers['apns-collapse-id'], undefined);
    assert.equal(apns({ silent: true, collapseId: 'c' }).headers['apns-collapse-id'], 'c');
  });
});

describe('an override obeys the rules of the fields that it replaces', () => {
  const cases: [field: string, fcm: Record<string, JsonValue>][] = [
    ['fcm.notification.title', { notification: { title: 5 } }],
    ['fcm.android.ttl', { android: { ttl: '2419201s' } }],
    ['fcm.android.ttl', { android: { ttl: 60 } }],
    ['fcm.android.priority', { android: { priority: 'urgent' } }],
    ['fcm.android.notification', { android: { notification: 'x' } }],
    ['fcm.android.notification.notification_count', { android: { notification: { notificationCount: -1 } } }],
    ['fcm.android.data.nid', { android: { data: { nid: 'x' } } }],
    ['fcm.android.data.google.x', { android: { data: { 'google.x': 'x' } } }],
    ['fcm.webpush.data.from', { webpush: { data: { from: 'x' } } }],
    ['fcm.webpush.data.n', { webpush: { data: { n: 1 } } }],
    ['fcm.webpush.headers.TTL', { webpush: { headers: { ttl: '2419201' } } }],
    ['fcm.webpush.headers.TTL', { webpush: { headers: { TTL: '-1' } } }],
    ['fcm.webpush.headers.Urgency', { webpush: { headers: { urgency: 'now' } } }],
    ['fcm.webpush.headers.Topic', { webpush: { headers: { Topic: 'a b' } } }],
    ['fcm.webpush.fcm_options.link', { webpush: { fcmOptions: { link: 'http://example.com' } } }],
    ['fcm.apns.headers.authorization', { apns: { headers: { Authorization: 'bearer x' } } }],
    ['fcm.apns.headers.apns-id', { apns: { headers: { 'apns-id': notificationId } } }],
    ['fcm.apns.headers.apns-priority', { apns: { headers: { 'apns-priority': 'high' } } }],
    ['fcm.apns.headers.apns-priority', { apns: { headers: { 'apns-priority': 10 } } }],
    ['fcm.apns.headers.apns-expiration', { apns: { headers: { 'apns-expiration': 'soon' } } }],
    ['fcm.apns.headers.apns-push-type', { apns: { headers: { 'apns-push-type': 'shout' } } }],
    ['fcm.apns.payload.aps', { apns: { payload: { aps: 'x' } } }],
    ['fcm.apns.payload.aps.badge', { apns: { payload: { aps: { badge: 1.5 } } } }],
    ['fcm.apns.payload.nid', { apns: { payload: { nid: 'x' } } }],
  ];
  for (const [field, override] of cases) {
    test(`${field} of ${JSON.stringify(override)} is refused`, () => {
      assert.equal(refusal('fcm', { title: 't', fcm: override }).field, field);
    });
  }

  test('a silent message shows nothing through FCM either', () => {
    for (const [field, override] of [
      ['fcm.notification', { notification: { title: 'x' } }],
      ['fcm.apns.payload.aps.alert', { apns: { payload: { aps: { alert: 'x' } } } }],
      ['fcm.apns.headers.apns-priority', { apns: { headers: { 'apns-priority': '10' } } }],
    ] as const) {
      assert.equal(refusal('fcm', { silent: true, fcm: override }).field, field);
    }
  });

  test('what is shown by an override alone is an alert', () => {
    for (const override of [{ notification: { title: 'x' } }, { apns: { payload: { aps: { alert: 'x' } } } }]) {
      const message = fcm({ data: { a: 1 }, fcm: override });
      assert.equal(at(message, 'apns', 'headers', 'apns-push-type'), 'alert');
      assert.equal(at(message, 'apns', 'payload', 'aps', 'content-available'), undefined);
    }
  });

  test('a header in other letters replaces ours', () => {
    const message = fcm({
      title: 't',
      ttlSeconds: 60,
      fcm: {
        webpush: { headers: { ttl: '5' } },
        apns: { headers: { 'Apns-Priority': '1' } },
        android: { priority: 'normal' },
      },
    });
    assert.deepEqual(at(message, 'webpush', 'headers'), { Urgency: 'high', TTL: '5' });
    assert.equal(at(message, 'apns', 'headers', 'apns-priority'), '1');
    assert.equal(at(message, 'apns', 'headers', 'Apns-Priority'), undefined);
    assert.equal(at(message, 'android', 'priority'), 'NORMAL');
  });

  test('a topic has the suffix of the push type', () => {
    const headers = { 'apns-topic': 'com.example.other' };
    assert.equal(apns({ title: 't', apns: { headers } }).headers['apns-topic'], 'com.example.other');
    assert.equal(refusal('apns', { pushType: 'voip', apns: { headers } }).field, 'apns.headers.apns-topic');
    assert.equal(
      refusal('apns', { title: 't', apns: { headers: { 'apns-topic': 'com.exämple' } } }).field,
      'apns.headers.apns-topic',
    );
  });
});

describe('every merged part is measured', () => {
  const text = 'x'.repeat(4_090);
  const cases: [field: string, platform: Platform | undefined, fcm: Record<string, JsonValue>][] = [
    ['message', undefined, { data: { text } }],
    ['message', undefined, { notification: { body: text } }],
    ['fcm.apns.payload', 'ios', { apns: { payload: { aps: { alert: text } } } }],
    ['fcm.apns.payload', 'ios', { apns: { payload: { custom: text } } }],
    ['fcm.android', 'android', { android: { data: { text } } }],
    ['fcm.android', 'android', { android: { notification: { body: text } } }],
    ['fcm.webpush', 'web', { webpush: { data: { text } } }],
    ['fcm.webpush', 'web', { webpush: { notification: { body: text } } }],
  ];
  for (const [field, platform, override] of cases) {
    const place = JSON.stringify(override).replace(text, '…');
    test(`${place} is refused as too large, by name`, () => {
      const error = refusal('fcm', { title: 't', fcm: override });
      assert.equal(error.field, field);
      assert.match(error.message, /has 4\d\d\d bytes, 4096 are allowed/);
    });
    if (platform === undefined) continue;
    test(`${place} is no fault for another platform, and is left out there`, () => {
      const others = platforms.filter((other) => other !== platform);
      measureMessage({ title: 't', fcm: override }, 'fcm', others);
      assert.throws(() => measureMessage({ title: 't', fcm: override }, 'fcm', [platform]), PayloadError);
      const built = buildFcmContent({ notificationId, message: { title: 't', fcm: override } }, now);
      assert.deepEqual([...built.faults.keys()], [platform]);
      assert.ok(JSON.stringify(built.message).length < 2_000);
    });
  }

  test('what is taken here, the simulated FCM takes too', () => {
    const messages: Message[] = [
      full,
      { silent: true },
      { data: { a: 1 } },
      { badge: 0 },
      { body: 'x'.repeat(4096 - measureMessage({ body: '' }, 'fcm')) },
      { title: 't', collapseId: 'Spielstand Köln', ttlSeconds: 0 },
      { title: 't', data: { google_id: 'x', gcmId: 'x' } },
      { data: { a: 1 }, fcm: { notification: { title: 'x' }, android: { priority: 'normal', ttl: '3.5s' } } },
      { title: 't', fcm: { android: { data: { text } }, apns: { payload: { text } }, webpush: { data: { text } } } },
    ];
    for (const message of messages) {
      const built = fcm(message, inSeconds(90));
      const { error } = readFcmMessage(Buffer.from(JSON.stringify({ message: { ...built, token: 'token:APA91b' } })));
      assert.equal(error, undefined, `${JSON.stringify(message).slice(0, 100)}: ${JSON.stringify(error)}`);
    }
  });

  test('data of a platform replaces what is common, so it alone counts', () => {
    const message = {
      title: 't',
      data: { text: 'x'.repeat(3_000) },
      fcm: { android: { data: { text: 'x'.repeat(3_000) } } },
    };
    measureMessage(message, 'fcm');
  });
});
