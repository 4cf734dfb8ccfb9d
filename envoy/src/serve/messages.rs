//! Limits on the messages of requests, before any service sees them.
//!
//! A message has to be complete within a time limit. A stream is charged for its largest message, since
//! that buffer stays allocated; the total of all streams is limited.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use http_body::Frame;
use prost::bytes::Bytes;
use tokio_util::sync::WaitForCancellationFutureOwned;
use tonic::{
    Status,
    body::Body,
    codegen::{Service, http},
};

use super::connection::Patience;
use crate::{
    caller::{Caller, InUse},
    permits::{Permit, Permits},
};

/// Messages up to this length, in bytes, are free: each stream has a buffer of this size anyway.
const SMALL: usize = 8 << 10;

/// No service accepts longer messages, so none is buffered whole. In bytes.
const LARGEST: usize = 256 << 10;

/// The length of a gRPC message prefix, in bytes: a flag and the message's length.
const PREFIX: usize = 5;

/// Services whose requests are limited.
#[derive(Clone, Debug)]
pub(super) struct Watched<S> {
    pub(super) services: S,
    /// Permits for bytes of all streams.
    pub(super) bytes: Permits,
    /// The time limit from the first byte of a message to its last.
    pub(super) message: Duration,
}

impl<S: Service<http::Request<Body>>> Service<http::Request<Body>> for Watched<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.services.poll_ready(cx)
    }

    fn call(&mut self, request: http::Request<Body>) -> S::Future {
        let caller = Caller::of(request.extensions());
        let request = request.map(|body| {
            Body::new(Incoming {
                body,
                message: Message::default(),
                time: Patience::new(self.message),
                heaviest: 0,
                permit: None,
                bytes: self.bytes.clone(),
                _in_use: caller.in_use(),
                caller,
            })
        });
        self.services.call(request)
    }
}

/// The body of one request.
struct Incoming {
    body: Body,
    message: Message,
    /// For the incomplete message.
    time: Patience,
    /// The length of the largest message.
    heaviest: usize,
    permit: Option<(Permit, Pin<Box<WaitForCancellationFutureOwned>>)>,
    bytes: Permits,
    caller: Caller,
    _in_use: InUse,
}

impl Incoming {
    fn take_in(&mut self, bytes: &[u8]) -> Result<(), Status> {
        let was_incomplete = self.message.is_incomplete();
        let (ended, longest) = self.message.follow(bytes);
        if ended || !was_incomplete {
            self.time.renew();
        }
        let weight = longest.min(LARGEST);
        if weight > SMALL.max(self.heaviest) {
            self.permit = None;
            let permit = self.bytes.take(&self.caller, weight).ok_or_else(no_memory)?;
            self.heaviest = weight;
            let revoked = Box::pin(permit.revoked());
            self.permit = Some((permit, revoked));
        }
        Ok(())
    }
}

fn no_memory() -> Status {
    Status::resource_exhausted("no memory for messages as large as these: others need it")
}

impl http_body::Body for Incoming {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.permit.as_mut().is_some_and(|(_, revoked)| revoked.as_mut().poll(cx).is_ready()) {
            return Poll::Ready(Some(Err(no_memory())));
        }
        let poll = Pin::new(&mut self.body).poll_frame(cx);
        match &poll {
            Poll::Ready(Some(Ok(frame))) => {
                if let Some(bytes) = frame.data_ref()
                    && let Err(status) = self.take_in(bytes)
                {
                    return Poll::Ready(Some(Err(status)));
                }
            }
            Poll::Pending if self.message.is_incomplete() && self.time.is_over(cx) => {
                let late = "a message was not complete in time";
                return Poll::Ready(Some(Err(Status::deadline_exceeded(late))));
            }
            _ => {}
        }
        poll
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }
}

/// The position of a stream in its messages.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
struct Message {
    /// Bytes of the prefix that were received.
    prefix: usize,
    /// The length in the prefix, as far as it was received.
    length: usize,
    /// Bytes of the message that are missing.
    left: usize,
}

impl Message {
    fn is_incomplete(self) -> bool {
        self.prefix > 0 || self.left > 0
    }

    /// Advances over received bytes. Returns whether a message ended in them, and the length of the
    /// longest one that began.
    fn follow(&mut self, mut bytes: &[u8]) -> (bool, usize) {
        let (mut ended, mut longest) = (false, 0);
        while let Some((first, rest)) = bytes.split_first() {
            if self.left > 0 {
                let come = self.left.min(bytes.len());
                self.left -= come;
                ended |= self.left == 0;
                bytes = bytes.get(come..).unwrap_or_default();
                continue;
            }
            bytes = rest;
            // The first byte is a flag.
            self.length = if self.prefix == 0 { 0 } else { self.length << 8 | usize::from(*first) };
            self.prefix += 1;
            if self.prefix == PREFIX {
                (self.prefix, self.left) = (0, self.length);
                ended |= self.left == 0;
                longest = longest.max(self.length);
            }
        }
        (ended, longest)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn message_boundaries_do_not_depend_on_how_bytes_arrive(
            lengths in proptest::collection::vec(0..700_usize, 0..8),
            cuts in proptest::collection::vec(1..400_usize, 1..40),
        ) {
            let mut bytes = Vec::new();
            let mut borders = vec![0];
            for length in &lengths {
                bytes.push(0);
                bytes.extend(u32::try_from(*length).unwrap().to_be_bytes());
                bytes.extend(vec![1; *length]);
                borders.push(bytes.len());
            }
            let (mut message, mut at, mut longest, mut cuts) = (Message::default(), 0, 0, cuts.iter().cycle());
            while at < bytes.len() {
                let to = (at + cuts.next().unwrap()).min(bytes.len());
                let (ended, length) = message.follow(&bytes[at..to]);
                prop_assert_eq!(ended, borders.iter().any(|border| (at + 1..=to).contains(border)));
                prop_assert_eq!(message.is_incomplete(), !borders.contains(&to));
                longest = longest.max(length);
                at = to;
            }
            prop_assert_eq!(longest, lengths.into_iter().max().unwrap_or_default());
        }
    }
}
