import assert from 'node:assert/strict';
import { test } from 'node:test';
import { apnsPushTypes } from '../../domain/message.ts';
import { ConfigError, readSettings } from '../../domain/settings.ts';
import { apnsPushTypeRules } from '../../providers/apns/payload.ts';
import { readApnsSettings } from '../../providers/apns/settings.ts';

const load = (topic: string) => readSettings({ APNS_TOPIC: topic }, readApnsSettings);

test('a topic with the suffix of a push type is refused at start, and the bundle id is named', () => {
  for (const pushType of apnsPushTypes) {
    const { topicSuffix } = apnsPushTypeRules[pushType];
    if (topicSuffix === '') continue;
    assert.throws(
      () => load(`com.example.app${topicSuffix}`),
      (error) => {
        assert.ok(error instanceof ConfigError);
        assert.match(error.message, /APNS_TOPIC must be the bundle id "com\.example\.app", not "/);
        assert.ok(error.message.includes(`"${topicSuffix}" is added by the push type`));
        return true;
      },
      pushType,
    );
  }
});

test('a topic that no bundle id can be is refused at start', () => {
  for (const topic of ['com.example app', 'com.exämple.app', 'com.example/app']) {
    assert.throws(() => load(topic), /APNS_TOPIC must be a bundle id/, topic);
  }
});

test('a bundle id is taken as it is, also where a suffix stands in its middle', () => {
  for (const topic of ['com.example.app', 'com.voip.app', 'com.example.voipapp', 'com.example.My-App_2']) {
    assert.equal(load(topic).topic, topic);
  }
});
