// Rules to begin with. Each is a draft: nothing is saved before a person saves it.

/**
 * @typedef {{key: string, spec: Record<string, any>}} Ready
 */

/** @type {Ready[]} */
export const READY = [
  {
    key: 'missed-call',
    spec: {
      name: 'Text after a missed call',
      source: 'vapi',
      event_type: 'end-of-call-report',
      when: "message.customer.number is defined and message.endedReason in ['customer-did-not-answer', 'customer-busy', 'silence-timed-out', 'voicemail']",
      action: 'twilio.send_sms',
      parameters: { to: '{{ message.customer.number }}', body: 'Sorry that we missed you. Reply to this text, and we call you back.' },
    },
  },
  {
    key: 'thanks',
    spec: {
      name: 'Text after every call',
      source: 'vapi',
      event_type: 'end-of-call-report',
      when: 'message.customer is defined and message.customer.number is defined',
      action: 'twilio.send_sms',
      parameters: { to: '{{ message.customer.number }}', body: 'Thank you for calling. Reply here if we can help with anything else.' },
    },
  },
  {
    key: 'summary',
    spec: {
      name: 'E-mail the summary of a call',
      source: 'vapi',
      event_type: 'end-of-call-report',
      when: 'message.analysis is defined and message.analysis.summary is defined',
      action: 'resend.send_email',
      parameters: { to: 'front.desk@example.com', subject: 'A call from {{ message.customer.number }}', text: '{{ message.analysis.summary }}' },
    },
  },
  {
    key: 'calendar',
    spec: {
      name: 'Book what was agreed in the call',
      source: 'vapi',
      event_type: 'end-of-call-report',
      when: 'message.analysis.structuredData is defined and message.analysis.structuredData.start is defined',
      action: 'google_calendar.create_event',
      parameters: {
        summary: 'Appointment of {{ message.customer.number }}',
        start: '{{ message.analysis.structuredData.start }}',
        end: '{{ message.analysis.structuredData.end }}',
      },
    },
  },
  {
    key: 'crm',
    spec: {
      name: 'Post every call to the CRM',
      source: 'vapi',
      event_type: 'end-of-call-report',
      action: 'http.post',
      parameters: { destination: 'crm', body: { call: '{{ message.call.id }}', ended: '{{ message.endedReason }}' } },
    },
  },
  {
    key: 'answer-text',
    spec: {
      name: 'Answer a text',
      source: 'twilio',
      event_type: 'message-received',
      action: 'twilio.send_sms',
      parameters: { to: '{{ params.From }}', body: 'Thank you. Somebody reads this during opening hours.' },
    },
  },
];

/** @param {string | null} key */
export function readyOf(key) {
  return READY.find((ready) => ready.key === key) ?? null;
}
