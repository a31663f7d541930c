//! What each service does with a request: the call graph of the shop, its latencies and its faults.
//!
//! Guards that a fault acts only where `World` says so: every other service behaves the same before and after, and
//! shows only what reaches it over its calls. No metric is written here; they follow from the spans.

use opentelemetry_proto::tonic::logs::v1::SeverityNumber;

use super::{Draft, Journey, Mail, Place, Reply};
use crate::otlp::{integer, text};
use crate::random::{MILLISECOND, SECOND};
use crate::recorder::Counter;
use crate::services::{self, Action, Endpoint, Service};
use crate::shape::Shape;
use crate::text::internal_failure;

/// Share of requests that fail for reasons of their own, at each server.
const NOISE: f64 = 0.0007;
/// How long a pool lets a caller wait.
const ACQUIRE_PATIENCE: i64 = 2 * SECOND;
/// How long checkout works on an order before it gives up.
const ORDER_PATIENCE: i64 = 5 * SECOND;
/// How long the frontend waits for recommendations.
const RECOMMEND_PATIENCE: i64 = 600 * MILLISECOND;
/// Attempts at a reservation.
const RESERVE_ATTEMPTS: u32 = 3;
/// Until the database ends a forgotten transaction and the connection comes back, in milliseconds (median).
const FORGOTTEN_MILLISECONDS: f64 = 600_000.0;
/// After how long the pool warns that somebody keeps a connection.
const LEAK_WARNING: i64 = 60 * SECOND;

impl Journey<'_> {
    pub(super) fn handle(&mut self, endpoint: &Endpoint, place: Place, at: i64, give_up: i64) -> Reply {
        if self.world.dice.chance(NOISE) {
            let end = at + self.work(4.0, 0.8);
            let body = internal_failure(&mut self.world.dice, endpoint.service);
            self.log(place, end, SeverityNumber::Error, body);
            return Reply::failed(end, 500, "internal error");
        }
        match endpoint.action {
            Action::Home => self.home(place, at),
            Action::ProductPage => self.product_page(place, at),
            Action::CartPage => self.cart_page(place, at),
            Action::AddToCartPage => self.add_to_cart_page(place, at),
            Action::CheckoutPage => self.checkout_page(place, at, give_up),
            Action::PlaceOrder => self.place_order(place, at),
            Action::ReadCart => self.cart_operation(place, at, "HGETALL"),
            Action::AddToCart => self.cart_operation(place, at, "HSET"),
            Action::EmptyCart => self.cart_operation(place, at, "DEL"),
            Action::ListProducts => self.list_products(place, at),
            Action::ReadProduct => self.read_product(place, at),
            Action::Recommend => self.recommend(place, at, give_up),
            Action::QuoteShipping => self.quote_shipping(place, at),
            Action::CreateShipment => self.create_shipment(place, at),
            Action::Charge => self.charge(place, at),
            Action::Reserve => self.reserve(place, at, give_up),
        }
    }

    /// Orders are counted where they are placed.
    pub(super) fn order_counter(endpoint: &Endpoint, reply: Reply) -> Option<Counter> {
        (endpoint.action == Action::PlaceOrder).then_some(match reply.status {
            0..=399 => Counter::Order { outcome: "placed" },
            402 => Counter::Order { outcome: "declined" },
            _ => Counter::Order { outcome: "failed" },
        })
    }

    /// One line per page, as a web server writes it.
    fn access_log(&mut self, place: Place, page: &str, at: i64, reply: Reply) -> Reply {
        let body = format!("{page} {} in {} ms", reply.status, (reply.end - at) / MILLISECOND);
        self.log(place, reply.end, SeverityNumber::Info, body);
        reply
    }

    /// Recommendations are nice to have: a page without them is still a page.
    fn recommendations_or_nothing(&mut self, place: Place, at: i64) -> i64 {
        let reply = self.call(place, &services::RECOMMEND, at, at + RECOMMEND_PATIENCE, 0);
        if !reply.succeeded() {
            let body = format!("rendering without recommendations: recommendation answered {}", reply.status);
            self.log(place, reply.end, SeverityNumber::Warn, body);
        }
        reply.end
    }

    fn home(&mut self, place: Place, at: i64) -> Reply {
        let ready = at + self.work(1.5, 0.4);
        let products = self.call(place, &services::LIST_PRODUCTS, ready, i64::MAX, 0);
        let recommended = self.recommendations_or_nothing(place, ready);
        self.page(place, "GET /", at, products, recommended)
    }

    fn product_page(&mut self, place: Place, at: i64) -> Reply {
        let ready = at + self.work(1.2, 0.4);
        let product = self.call(place, &services::READ_PRODUCT, ready, i64::MAX, 0);
        let recommended = self.recommendations_or_nothing(place, ready);
        let page = format!("GET /product/{}", self.user);
        self.page(place, &page, at, product, recommended)
    }

    /// Puts a page together out of what it cannot do without and when everything else was there.
    fn page(&mut self, place: Place, page: &str, at: i64, needed: Reply, other: i64) -> Reply {
        let ready = needed.end.max(other);
        let took = self.work(3.0, 0.5);
        let end = self.internal(place, "render", ready, took);
        let reply = if needed.succeeded() { Reply::ok(end) } else { Reply::failed(end, 502, "upstream request failed") };
        self.access_log(place, page, at, reply)
    }

    fn cart_page(&mut self, place: Place, at: i64) -> Reply {
        let ready = at + self.work(1.0, 0.4);
        let cart = self.call(place, &services::READ_CART, ready, i64::MAX, 0);
        self.page(place, "GET /cart", at, cart, ready)
    }

    fn add_to_cart_page(&mut self, place: Place, at: i64) -> Reply {
        let ready = at + self.work(1.0, 0.4);
        let product = self.call(place, &services::READ_PRODUCT, ready, i64::MAX, 0);
        let added =
            if product.succeeded() { self.call(place, &services::ADD_TO_CART, product.end, i64::MAX, 0) } else { product };
        self.page(place, "POST /cart", at, added, ready)
    }

    fn checkout_page(&mut self, place: Place, at: i64, give_up: i64) -> Reply {
        let ready = at + self.work(1.5, 0.4);
        let order = self.call(place, &services::PLACE_ORDER, ready, give_up, 0);
        let end = order.end + self.work(2.0, 0.4);
        if order.status >= 500 {
            let body = format!("POST /checkout failed for user u-{}: checkout answered {}", self.user, order.status);
            self.log(place, order.end, SeverityNumber::Error, body);
            let session = self.world.dice.between(100_000, 999_999);
            self.log(place, end, SeverityNumber::Error, format!("showing the error page to session {session}"));
        }
        let status = if order.status == 500 { 502 } else { order.status };
        let error = (status >= 500).then_some("checkout failed");
        self.access_log(place, "POST /checkout", at, Reply { end, status, error })
    }

    fn place_order(&mut self, place: Place, at: i64) -> Reply {
        let order = format!("ord-{:08x}", self.world.dice.bits() >> 32);
        let give_up = at + ORDER_PATIENCE;
        let ready = at + self.work(2.0, 0.4);
        self.log(place, ready, SeverityNumber::Info, format!("placing order {order} for user u-{}", self.user));
        let cart = self.call(place, &services::READ_CART, ready, give_up, 0);
        if !cart.succeeded() {
            return self.order_failed(place, &order, cart.end, 500, "cart");
        }
        let quote = self.call(place, &services::QUOTE_SHIPPING, cart.end, give_up, 0);
        if !quote.succeeded() {
            return self.order_failed(place, &order, quote.end, 500, "shipping");
        }
        let reserved = self.reserve_with_retries(place, &order, quote.end, give_up);
        if !reserved.succeeded() {
            return self.order_failed(place, &order, reserved.end, 504, "inventory");
        }
        let charged = self.call(place, &services::CHARGE, reserved.end, i64::MAX, 0);
        if charged.status == 402 {
            let end = charged.end + self.work(0.5, 0.3);
            self.log(place, charged.end, SeverityNumber::Warn, format!("order {order}: card declined"));
            return Reply { end, status: 402, error: None };
        }
        if !charged.succeeded() {
            return self.order_failed(place, &order, charged.end, 500, "payment");
        }
        let shipped = self.call(place, &services::CREATE_SHIPMENT, charged.end, i64::MAX, 0);
        if !shipped.succeeded() {
            return self.order_failed(place, &order, shipped.end, 500, "shipping");
        }
        let published = self.publish(place, &order, shipped.end);
        let end = published + self.work(0.8, 0.3);
        self.log(place, end, SeverityNumber::Info, format!("order {order} placed in {} ms", (end - at) / MILLISECOND));
        // Nobody waits for the cart to be emptied: this call may outlive the order.
        self.call(place, &services::EMPTY_CART, end - 1, i64::MAX, 0);
        Reply::ok(end)
    }

    fn order_failed(&mut self, place: Place, order: &str, at: i64, status: u16, upstream: &str) -> Reply {
        let end = at + self.work(1.0, 0.3);
        let body = format!("order {order} failed: {upstream} did not deliver, answering {status}");
        self.log(place, end, SeverityNumber::Error, body);
        Reply::failed(end, status, if status == 504 { "upstream request timeout" } else { "upstream request failed" })
    }

    fn reserve_with_retries(&mut self, place: Place, order: &str, at: i64, give_up: i64) -> Reply {
        let mut start = at;
        let mut attempt = 0;
        loop {
            let reply = self.call(place, &services::RESERVE, start, give_up - 10 * MILLISECOND, attempt);
            attempt += 1;
            if reply.succeeded() {
                return reply;
            }
            let waited = (reply.end - start) / MILLISECOND;
            let body = format!(
                "call to inventory failed: POST /reservations answered {} after {waited} ms (order {order})",
                reply.status
            );
            self.log(place, reply.end, SeverityNumber::Error, body);
            let pause = self.work(100.0 * f64::from(attempt), 0.2);
            start = reply.end + pause;
            if attempt >= RESERVE_ATTEMPTS || start + 200 * MILLISECOND > give_up {
                return reply;
            }
            let body = format!("retrying reservation of order {order}, attempt {} of {RESERVE_ATTEMPTS}", attempt + 1);
            self.log(place, reply.end, SeverityNumber::Warn, body);
        }
    }

    fn publish(&mut self, place: Place, order: &str, at: i64) -> i64 {
        let producer = self.place(place.pod);
        let end = at + self.work(1.5, 0.4);
        self.finish(Draft {
            place: producer,
            parent: Some(place.span),
            name: "publish order-confirmations",
            shape: Shape::Publish,
            start: at,
            end,
            error: None,
            extra: vec![text("shop.order.id", order)],
            exception: None,
            counter: None,
        });
        let origin = (self.trace_id, producer.span);
        self.left.mails.push(Mail { published: end, origin, order: order.to_owned() });
        end
    }

    pub(super) fn send_confirmation(&mut self, mail: &Mail, at: i64) {
        let pod = self.world.fleet.route(&mut self.world.dice, Service::Email, at);
        let place = self.place(pod);
        let ready = at + self.work(4.0, 0.4);
        let (server, template) = ("mail.example.net", "/v3/mail/send");
        let shape = Shape::HttpClient { method: "POST", template, server, status: 202 };
        let took = self.work(110.0, 0.4);
        let end = self.reach(place, "POST /v3/mail/send", shape, ready, took, Vec::new()) + self.work(0.5, 0.3);
        self.log(place, end, SeverityNumber::Info, format!("confirmation of order {} sent", mail.order));
        self.finish(Draft {
            place,
            parent: None,
            name: "process order-confirmations",
            shape: Shape::Process,
            start: at,
            end,
            error: None,
            extra: vec![text("shop.order.id", mail.order.clone())],
            exception: None,
            counter: None,
        });
        self.link_last(mail.origin);
    }

    fn redis(&mut self, place: Place, at: i64, operation: &'static str, collection: &'static str) -> i64 {
        let shape = Shape::Database { system: "redis", operation, collection, server: "redis", failed: false };
        let took = self.work(0.6, 0.5);
        self.reach(place, operation, shape, at, took, vec![integer("server.port", 6_379)])
    }

    fn postgres(&mut self, place: Place, at: i64, query: Query) -> i64 {
        let Query { name, operation, collection, median } = query;
        let shape = Shape::Database { system: "postgresql", operation, collection, server: "postgres", failed: false };
        let slow = self.world.dice.chance(0.001);
        let took = if slow { self.work(median * 40.0, 0.4) } else { self.work(median, 0.5) };
        let extra = vec![text("db.namespace", "shop"), integer("server.port", 5_432)];
        let end = self.reach(place, name, shape, at, took, extra);
        if slow {
            self.log(place, end, SeverityNumber::Warn, format!("slow query ({} ms): {name}", took / MILLISECOND));
        }
        end
    }

    fn cart_operation(&mut self, place: Place, at: i64, operation: &'static str) -> Reply {
        let ready = at + self.work(0.6, 0.4);
        let stored = self.redis(place, ready, operation, "carts");
        if operation == "HGETALL" && self.world.dice.chance(0.05) {
            self.log(place, stored, SeverityNumber::Debug, format!("cache miss for cart of user u-{}", self.user));
        }
        Reply::ok(stored + self.work(0.4, 0.4))
    }

    /// Borrows a connection, runs `work` on it and returns it.
    fn with_connection(&mut self, place: Place, at: i64, work: impl FnOnce(&mut Self, i64) -> i64) -> Result<i64, Reply> {
        match self.borrow_connection(place, at, ACQUIRE_PATIENCE) {
            Ok((slot, at)) => {
                let done = work(self, at);
                self.return_connection(place, slot, done);
                Ok(done)
            }
            Err(at) => Err(Reply::failed(at + self.work(0.3, 0.3), 503, "no database connection")),
        }
    }

    fn list_products(&mut self, place: Place, at: i64) -> Reply {
        let ready = at + self.work(0.8, 0.4);
        let per_row = self.world.queries_per_row(place.pod);
        let rows = self.world.dice.between(18, 30);
        let queried = self.with_connection(place, ready, |journey, at| {
            let mut done = journey.postgres(place, at, LIST_PRODUCTS);
            if per_row {
                for _ in 0..rows {
                    done = journey.postgres(place, done, PRICE_OF_ONE);
                }
            }
            done
        });
        match queried {
            Ok(done) => {
                let end = done + self.work(1.5, 0.4);
                if self.world.dice.chance(0.2) {
                    self.log(
                        place,
                        end,
                        SeverityNumber::Info,
                        format!("listed {rows} products in {} ms", (end - at) / MILLISECOND),
                    );
                }
                Reply::ok(end)
            }
            Err(reply) => reply,
        }
    }

    fn read_product(&mut self, place: Place, at: i64) -> Reply {
        let ready = at + self.work(0.6, 0.4);
        if self.world.dice.chance(0.7) {
            return Reply::ok(ready + self.work(0.4, 0.4));
        }
        let product = self.user % 480;
        self.log(place, ready, SeverityNumber::Debug, format!("cache miss for product {product}, reading from database"));
        match self.with_connection(place, ready, |journey, at| journey.postgres(place, at, READ_PRODUCT)) {
            Ok(done) => Reply::ok(done + self.work(0.5, 0.4)),
            Err(reply) => reply,
        }
    }

    fn recommend(&mut self, place: Place, at: i64, give_up: i64) -> Reply {
        let ready = at + self.work(0.5, 0.3);
        let mut done = self.redis(place, ready, "GET", "profiles");
        if self.world.dice.chance(0.15) {
            self.log(
                place,
                done,
                SeverityNumber::Debug,
                format!("profile of user u-{} not cached, using best sellers", self.user),
            );
            let listed = self.call(place, &services::LIST_PRODUCTS, done, give_up, 0);
            if !listed.succeeded() {
                return Reply::failed(listed.end + self.work(0.5, 0.3), 502, "upstream request failed");
            }
            done = listed.end;
        }
        let leaked = self.world.leaked_memory(place.pod, at);
        let mut end = done + self.work(9.0, 0.5);
        if leaked > 0.3 && self.world.dice.chance((leaked - 0.3) * 0.9) {
            let pause = self.work(500.0 * leaked * leaked, 0.4);
            end += pause;
            if end <= give_up {
                let in_use = (240.0 + leaked * 780.0) as u64;
                let body =
                    format!("garbage collection (generation 2) took {} ms, {in_use} MiB still in use", pause / MILLISECOND);
                self.log(place, end, SeverityNumber::Warn, body);
            }
        }
        if end > give_up && done < give_up {
            self.log(place, give_up, SeverityNumber::Warn, "caller gave up before the ranking was ready".to_owned());
            return Reply::failed(give_up, 504, "deadline exceeded");
        }
        Reply::ok(end)
    }

    fn quote_shipping(&mut self, place: Place, at: i64) -> Reply {
        let end = at + self.work(2.5, 0.4);
        if self.world.dice.chance(0.1) {
            let (zone, grams) = (self.world.dice.between(1, 9), self.world.dice.between(80, 9_000));
            self.log(place, end, SeverityNumber::Debug, format!("quoted {grams} g to zone {zone}"));
        }
        Reply::ok(end)
    }

    fn create_shipment(&mut self, place: Place, at: i64) -> Reply {
        let end = at + self.work(4.0, 0.4);
        if self.world.dice.chance(0.3) {
            let parcel = self.world.dice.between(10_000_000, 99_999_999);
            self.log(place, end, SeverityNumber::Info, format!("shipment {parcel} created for user u-{}", self.user));
        }
        Reply::ok(end)
    }

    fn charge(&mut self, place: Place, at: i64) -> Reply {
        let ready = at + self.work(1.0, 0.3);
        let (server, template) = ("cards.example.net", "/v1/charges");
        let shape = Shape::HttpClient { method: "POST", template, server, status: 201 };
        let took = self.work(60.0, 0.35);
        let authorized = self.reach(place, "POST /v1/charges", shape, ready, took, Vec::new());
        let declined = self.world.dice.chance(0.002);
        match self.with_connection(place, authorized, |journey, at| journey.postgres(place, at, WRITE_LEDGER)) {
            Ok(done) if declined => {
                self.log(place, done, SeverityNumber::Warn, format!("charge of user u-{} declined by the issuer", self.user));
                Reply { end: done + self.work(0.3, 0.3), status: 402, error: Some("card declined") }
            }
            Ok(done) => {
                let amount = self.world.dice.between(900, 24_900);
                let body = format!("charged {}.{:02} EUR to user u-{}", amount / 100, amount % 100, self.user);
                self.log(place, done, SeverityNumber::Info, body);
                Reply::ok(done + self.work(0.3, 0.3))
            }
            Err(reply) => reply,
        }
    }

    fn reserve(&mut self, place: Place, at: i64, give_up: i64) -> Reply {
        let ready = at + self.work(0.8, 0.4);
        let patience = ACQUIRE_PATIENCE.min(give_up - ready - 20 * MILLISECOND);
        let (slot, granted) = match self.borrow_connection(place, ready, patience) {
            Ok(granted) => granted,
            Err(at) => return Reply::failed(at + self.work(0.4, 0.3), 503, "timed out acquiring connection"),
        };
        let locked = self.postgres(place, granted, LOCK_STOCK);
        let done = self.postgres(place, locked, UPDATE_STOCK);
        if self.world.leaks_connection(place.pod) {
            let back = done + self.work(FORGOTTEN_MILLISECONDS, 0.1);
            self.return_connection(place, slot, back);
            if self.world.dice.chance(0.3) {
                let body = format!(
                    "connection {slot} of pool 'stock' was borrowed 60 s ago by ReservationService.reserve and not returned"
                );
                self.log_later(place, done + LEAK_WARNING, SeverityNumber::Warn, body);
            }
        } else {
            self.return_connection(place, slot, done);
        }
        let end = done + self.work(0.8, 0.4);
        let (items, warehouse) = (self.world.dice.between(1, 6), self.world.dice.word(&["ams-1", "fra-2", "waw-1"]));
        self.log(place, end, SeverityNumber::Info, format!("reserved {items} items in warehouse {warehouse}"));
        Reply::ok(end)
    }
}

/// A statement and how long it usually takes, in milliseconds.
#[derive(Debug, Clone, Copy)]
struct Query {
    name: &'static str,
    operation: &'static str,
    collection: &'static str,
    median: f64,
}

const fn query(name: &'static str, operation: &'static str, collection: &'static str, median: f64) -> Query {
    Query { name, operation, collection, median }
}

const LIST_PRODUCTS: Query = query("SELECT products", "SELECT", "products", 3.0);
const PRICE_OF_ONE: Query = query("SELECT prices", "SELECT", "prices", 2.5);
const READ_PRODUCT: Query = query("SELECT products", "SELECT", "products", 1.2);
const WRITE_LEDGER: Query = query("INSERT ledger", "INSERT", "ledger", 2.5);
const LOCK_STOCK: Query = query("SELECT stock", "SELECT", "stock", 2.0);
const UPDATE_STOCK: Query = query("UPDATE stock", "UPDATE", "stock", 3.0);
